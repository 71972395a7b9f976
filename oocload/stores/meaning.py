"""What the values of a field stand for, as attributes of its array or group: docs/converting.md, "On disk".

``oocload_vocabulary`` is JSON text, a list of strings; ``oocload_content`` is "text" or "image"; ``oocload_shape`` is
JSON text, a list of whole numbers. JSON, as the attributes of HDF5 hold no more than 64 KiB unless they are one text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from oocload.layout import NO_MEANING, Meaning

VOCABULARY, CONTENT, SHAPE = "oocload_vocabulary", "oocload_content", "oocload_shape"


def meaning_attributes(meaning: Meaning) -> dict[str, str]:
    """Return the attributes that say what values stand for; none for a field of plain numbers."""
    said: dict[str, str] = {}
    if meaning.vocabulary:
        said[VOCABULARY] = _json(meaning.vocabulary)
    if meaning.content:
        said[CONTENT] = meaning.content
    if meaning.shape:
        said[SHAPE] = json.dumps(meaning.shape)
    return said


def meaning_of(attributes: Mapping[str, Any], dtype: np.dtype[Any] | None = None) -> Meaning:
    """Return what attributes say, or the names of an HDF5 enumeration that count from 0.

    What is damaged, or was written by something else, says nothing: rows can be read all the same.
    """
    vocabulary = tuple(v for v in _listed(attributes, VOCABULARY) if isinstance(v, str))
    content = _text(attributes.get(CONTENT))
    shape = tuple(n for n in _listed(attributes, SHAPE) if isinstance(n, int))
    if not vocabulary and dtype is not None:
        vocabulary = _names_of(dtype)
    if not vocabulary and content not in ("text", "image"):
        return NO_MEANING
    return Meaning(vocabulary, "text" if content == "text" else "image" if content == "image" else "", shape)


def problem_of_meaning(first: Meaning, other: Meaning) -> str:
    """Return why values of one field cannot follow those of another; empty when they can."""
    if first.vocabulary == other.vocabulary:
        return ""
    return (
        f"its numbers stand for {_shown(other.vocabulary)}, in the first for {_shown(first.vocabulary)}; convert all "
        "files together, or with one vocabulary"
    )


def _json(words: tuple[str, ...]) -> str:
    """Return JSON, in which words that UTF-8 cannot hold are escaped: names of files may be such."""
    text = json.dumps(words, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(words)
    return text


def _names_of(dtype: np.dtype[Any]) -> tuple[str, ...]:
    """Return the names of an enumeration whose values are 0, 1, 2, ...; none of any other dtype."""
    names = h5py.check_enum_dtype(dtype) or {}
    ordered = sorted(names, key=names.__getitem__)
    return tuple(ordered) if [names[n] for n in ordered] == list(range(len(ordered))) else ()


def _listed(attributes: Mapping[str, Any], name: str) -> list[Any]:
    try:
        found = json.loads(_text(attributes.get(name)) or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def _shown(vocabulary: tuple[str, ...]) -> str:
    if not vocabulary:
        return "themselves"
    some = ", ".join(map(repr, vocabulary[:3]))
    return some + (f" … ({len(vocabulary)} words)" if len(vocabulary) > 3 else "")

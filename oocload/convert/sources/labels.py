"""Labels of samples and named sets of them, as people keep them beside the files: dicts, JSON, CSV.

Samples are known by ids. Whatever does not fit the samples that there are is an error that names the id.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.layout import Meaning

T = TypeVar("T")
Table = Mapping[Any, Any] | str | os.PathLike[str]


def read_labels(given: Table) -> dict[str, Any]:
    """Return id → label of a dict, a JSON file of one, or a CSV file with the columns ``id`` and ``label``.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, InvalidArgumentError
        If it is gone, is none of these, or has an id twice.

    """
    if isinstance(given, Mapping):
        return {str(name): label for name, label in given.items()}
    if _suffix(given, "labels") == ".json":
        return _read_json(given, "id → label")
    rows = read_csv(given, ["id", "label"])
    labels = typed([text for _, text in rows])
    found: dict[str, Any] = {}
    for (name, _), label in zip(rows, labels, strict=True):
        if name in found:
            raise StoreFormatError(f"{os.fspath(given)} must have each id once, and has {name!r} twice")
        found[name] = label
    return found


def read_partition(given: Table) -> dict[str, list[str]]:
    """Return name → ids of a dict, a JSON file of one, or a CSV file with the columns ``id`` and ``split``.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, InvalidArgumentError
        If it is gone, or is none of these.

    """
    if not isinstance(given, Mapping) and _suffix(given, "partition") == ".csv":
        found: dict[str, list[str]] = {}
        for name, split in read_csv(given, ["id", "split"]):
            found.setdefault(split, []).append(name)
        return found
    read = given if isinstance(given, Mapping) else _read_json(given, "name → ids")
    for name, ids in read.items():
        if isinstance(ids, str) or not isinstance(ids, Iterable):
            raise InvalidArgumentError(f"partition must have a list of ids for {name!r}, got {ids!r}")
    return {str(name): list(map(str, ids)) for name, ids in read.items()}


def read_csv(path: str | os.PathLike[str], columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Return some columns of a CSV file whose first line names them.

    Raises
    ------
    StoreNotFoundError, StoreFormatError
        If the file or a column is not there, or a line has too few.

    """
    lines = _opened(path, lambda file: list(csv.reader(file)))
    head = [name.strip() for name in lines[0]] if lines else []
    for column in columns:
        if column not in head:
            raise StoreFormatError(
                f"{os.fspath(path)} must have a column {column!r}, and its first line names {', '.join(head) or 'none'}"
            )
    places = [head.index(column) for column in columns]
    for number, line in enumerate(lines[1:], 2):
        if line and len(line) != len(head):
            raise StoreFormatError(f"{os.fspath(path)}, line {number}: must have {len(head)} values, got {len(line)}")
    return [tuple(line[place] for place in places) for line in lines[1:] if line]


def typed(texts: Sequence[str]) -> list[Any]:
    """Return the whole numbers that all texts are, or else the numbers, or else the texts."""
    for number in (int, float):
        if any("_" in text for text in texts):  # Python takes 1_0 for a number, and people for a name
            break
        try:
            return [number(text) for text in texts]
        except ValueError:
            continue
    return list(texts)


def encode_labels(labels: Sequence[Any]) -> tuple[NDArray[Any], Meaning]:
    """Return labels as an array: numbers as they are, texts as codes of a sorted vocabulary, an empty one as -1.

    Raises
    ------
    InvalidArgumentError
        If some are text and others are not, or they are neither numbers nor arrays of one shape.

    """
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) == len(labels):
        places = {text: place for place, text in enumerate(sorted(set(texts) - {""}))}
        codes = np.fromiter((places.get(text, -1) for text in texts), np.int64, len(texts))
        return codes, Meaning(vocabulary=tuple(places))
    try:
        found = np.asarray(labels)
    except (ValueError, OverflowError):
        found = np.empty(0, object)
    if texts or found.dtype.kind not in "biufc":
        first = type(labels[0]), np.shape(labels[0])
        other = next((label for label in labels if (type(label), np.shape(label)) != first), labels[0])
        raise InvalidArgumentError(
            f"labels must be all numbers, all text, or arrays of numbers of one shape, got {labels[0]!r} and {other!r}"
        )
    return found, Meaning()


def encode_texts(texts: Sequence[str], vocabulary: Sequence[str]) -> tuple[NDArray[np.int64], Meaning]:
    """Return the place of each text in a vocabulary."""
    places = {text: place for place, text in enumerate(vocabulary)}
    codes = np.fromiter(map(places.__getitem__, texts), np.int64, len(texts))
    return codes, Meaning(vocabulary=tuple(vocabulary))


def encode_splits(splits: Sequence[str | None], names: Sequence[str]) -> tuple[NDArray[Any], Meaning]:
    """Return the number of the set that each sample is in, -1 for none."""
    places: dict[str | None, int] = {name: place for place, name in enumerate(names)}
    codes = np.fromiter((places.get(split, -1) for split in splits), np.int16, len(splits))
    return codes.astype(np.int8) if len(names) <= 127 else codes, Meaning(vocabulary=tuple(names))


def labels_of(ids: Collection[str], labels: Mapping[str, Any], label: str) -> list[Any]:
    """Return the label of each id.

    Raises
    ------
    InvalidArgumentError
        If an id has none, or a label has no file.

    """
    known = set(ids)
    refuse([name for name in labels if name not in known], f"labels must be of files in {label}, and no file is there")
    refuse([name for name in ids if name not in labels], f"labels must have one for each file of {label}, got none")
    return [labels[name] for name in ids]


def splits_of(ids: Collection[str], partition: Mapping[str, Sequence[str]], label: str) -> list[str | None]:
    """Return the name of the set that each id is in, None for none.

    Raises
    ------
    InvalidArgumentError
        If an id of a set has no file, or is in two sets, or twice in one.

    """
    found: dict[str, str | None] = dict.fromkeys(ids)
    for split, members in partition.items():
        refuse(
            [n for n in members if n not in found], f"partition must have ids of files in {label}, and no file is there"
        )
        for name in members:
            if found[name] is not None:
                raise InvalidArgumentError(
                    f"partition must have each id once, got {name!r} in {found[name]!r} and in {split!r}"
                )
            found[name] = split
    return list(found.values())


def refuse(ids: Sequence[str], problem: str) -> None:
    """Raise a problem where some ids have it.

    Raises
    ------
    InvalidArgumentError
        If there are any.

    """
    if ids:
        more = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
        raise InvalidArgumentError(f"{problem} for {ids[0]!r}{more}")


def _suffix(path: Any, name: str) -> str:
    if not isinstance(path, str | os.PathLike):
        raise InvalidArgumentError(f"{name} must be a dict or the path of a .json or .csv file, got {path!r}")
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in (".json", ".csv"):
        raise InvalidArgumentError(
            f"{name} must be a dict or the path of a .json or .csv file, got {os.fspath(path)!r}"
        )
    return suffix


def _read_json(path: Any, what: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            twice = next(name for name, n in Counter(name for name, _ in pairs).items() if n > 1)
            raise ValueError(f"each name must occur once, got {twice!r} twice")
        return found

    found = _opened(path, lambda file: json.load(file, object_pairs_hook=once))
    if not isinstance(found, dict):
        raise StoreFormatError(f"{os.fspath(path)} must be an object of {what}, got a {type(found).__name__}")
    return found


def _opened(path: str | os.PathLike[str], read: Callable[[Any], T]) -> T:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return read(file)
    except FileNotFoundError as exc:
        raise StoreNotFoundError(f"source must exist, got {os.fspath(path)!r}; nothing lies at that path") from exc
    except (ValueError, csv.Error, OSError, RecursionError) as exc:
        raise StoreFormatError(f"{os.fspath(path)} cannot be read: {exc}") from exc

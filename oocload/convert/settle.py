"""The codec of a conversion that is to choose one, settled before a row is written: by samples, or what was begun."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.convert.auto import choose_codec, sample_starts
from oocload.convert.fields import parse_fields
from oocload.convert.journal import read_recipe
from oocload.convert.options import AUTO, Options
from oocload.convert.ragged import RaggedRows
from oocload.convert.sources.base import RowSource
from oocload.convert.stream import closing_batches
from oocload.convert.workplace import journal_of
from oocload.convert.writer import check_rows


def settle_codec(rows: RowSource, path: Path, is_parts: bool, options: Options) -> tuple[Options, str]:
    """Return options that name a codec, and the table of those that were tried.

    Samples are taken from all over a source that can be read anywhere. Of others, the first rows will tell.
    """
    if options.codec != AUTO:
        return options, ""
    destination = path.parent if is_parts else path
    begun = read_recipe(journal_of(destination)) if options.resume else None
    if begun is not None:
        begun = begun.get("options", begun)
        return replace(options, codec=begun["codec"], level=begun["level"]), ""
    is_there = options.resume and destination.exists()  # perhaps it is made
    if is_there or rows.specs is None or not rows.can_jump:
        return options, ""
    samples, heights = _samples(rows, path, options)
    choice = choose_codec(
        options.format_of(path), samples, _folder_above(destination), len(os.sched_getaffinity(0)), heights
    )
    return replace(options, codec=choice.encoding.codec, level=choice.encoding.level), str(choice)


def _samples(rows: RowSource, path: Path, options: Options) -> tuple[dict[str, NDArray[Any]], Mapping[str, int]]:
    """Return rows of each field from all over a source, and how many make a chunk."""
    fields, n_rows = parse_fields(rows.specs or {}), rows.n_rows or 0
    arrays = options.arrays_of(fields, options.format_of(path), n_rows)
    height = max(arrays.values(), key=lambda array: array.chunk_nbytes).height
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in fields}
    for start in sample_starts(n_rows, height):
        with closing_batches(rows.batches(options.chunk_nbytes, start, min(n_rows, start + height))) as batches:
            for batch in batches:
                for name, given in check_rows(batch, fields).items():
                    found[name].append(np.array(given.values if isinstance(given, RaggedRows) else given))
    samples = {name: np.concatenate(some) for name, some in found.items()}
    return samples, {name: max(1, min(height, len(some))) for name, some in samples.items()}


def _folder_above(path: Path) -> Path:
    return path.absolute().parent

"""A store in several files of bounded size: ``folder/part-*.h5``, each written whole, and the folder renamed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oocload.convert.arrays import NewArray
from oocload.convert.buffers import Rows
from oocload.convert.fields import Spec, parse_fields, spec_of
from oocload.convert.journal import Journal, Mark
from oocload.convert.options import Options
from oocload.convert.ragged import CsrSpec, RaggedRows
from oocload.convert.recipe import SOURCE, check_recipe
from oocload.convert.report import Callback, ConversionReport, Reporter, peak_nbytes
from oocload.convert.session import Source
from oocload.convert.sources.base import RowSource
from oocload.convert.spec import FieldSpec
from oocload.convert.stream import batches_for, stored_nbytes
from oocload.convert.workplace import Workplace, check_target
from oocload.convert.writer import Writer, check_rows
from oocload.errors import InvalidArgumentError
from oocload.units import format_bytes, parse_bytes

_STAR = "*"
_PARTS = "parts"  # of the journal: files are noted in it as chunks are
_OFFSET_NBYTES = 8
_HEADER_NBYTES = 2**15  # of a file, before it holds a row
_INDEX_SHARE = 64  # of the bytes of a file, one in so many is left to the index of its chunks


def check_parts(path: Path, part_bytes: int | str | None) -> int:
    """Return the most bytes of a file, 0 where there is to be one store.

    Raises
    ------
    InvalidArgumentError
        If the name of the files has no place for a number, or nothing bounds them.

    """
    if part_bytes is None:
        if _STAR in path.name:
            raise InvalidArgumentError(
                f"part_bytes must be given for a target of several files, got {os.fspath(path)!r}; pass such as "
                "part_bytes='2 GiB'"
            )
        return 0
    if path.name.count(_STAR) != 1 or _STAR in os.fspath(path.parent) or not path.parent.name:
        raise InvalidArgumentError(
            "target must be files of a folder of their own, with one star in their name, such as 'train/part-*.h5', "
            f"where part_bytes is given, got {os.fspath(path)!r}"
        )
    return parse_bytes(part_bytes, "part_bytes")


def write_parts(
    rows: RowSource, path: Path, part_nbytes: int, options: Options, progress: bool | Callback | None
) -> ConversionReport:
    """Write all rows of a source as several files."""
    parts = _Parts(rows, path, part_nbytes, options)
    try:
        with Reporter(path.name, rows.n_rows, progress, *parts.so_far) as reporter:
            parts.write(reporter)
    except BaseException:
        parts.close()
        raise
    return ConversionReport(
        path=os.fspath(path),
        n_rows=parts.n_rows,
        fields=tuple(parts.fields),
        nbytes=parts.nbytes,
        stored_nbytes=stored_nbytes(path.parent),
        seconds=reporter.seconds,
        n_rows_before=parts.n_rows_before,
        peak_nbytes=peak_nbytes(),
        codec=parts.codec,
    )

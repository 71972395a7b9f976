"""CSV and TSV files: blocks of whole records, parsed by pyarrow in many threads."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from numpy.typing import DTypeLike

import oocload.stores as stores
from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.sources.columns import ColumnField, columns_of, complete
from oocload.convert.sources.csv_blocks import AUTO, TABS, Block, Dialect, stem_suffix
from oocload.convert.sources.csv_facts import PASS_NBYTES, CsvFacts
from oocload.convert.sources.identity import Identity, file_facts
from oocload.convert.sources.records import OnError, Records, RecordSource, check_on_error
from oocload.convert.sources.table_choice import Features, Labels, TableChoice, Texts, is_names
from oocload.errors import InvalidArgumentError, StoreNotFoundError
from oocload.layout import Meaning
from oocload.units import whole_number

SUFFIXES = (".csv", *TABS)


class CsvSource(RecordSource[Block]):
    """Rows of delimited text: one file or several, plain or packed (``.gz``, ``.bz2``, ``.zst``).

    Each column becomes a field of its name: numbers and bools of their type, as the first MiB of the first file tells
    it (``int64``, ``float64``, ``bool``), and text, dates included, as ragged bytes. Where more than half of a column
    are numbers there, a word in it is an error. Missing numbers are NaN. Options
    make matrices, labels and tokens of columns.

    Parameters
    ----------
    paths
        A path, a glob (in natural order: 2 before 10), or a list of them, whose rows follow each other. All have the
        same columns.
    columns
        Those to take, beside those that other options name; None for all.
    features
        Columns of numbers that become one matrix, the field ``x`` of float32: a list, or True for all columns of
        numbers that no other option names. Or field → columns, for several matrices.
    label
        The column that becomes the field ``y``: words as codes from 0 with a vocabulary, an empty word as -1; numbers
        as they are.
    labels
        More columns that become codes, each a field of its name: a list, or column → its vocabulary. Where that is
        None, it is found in a first pass over the column: its words, sorted. May hold the column of ``label`` too.
    text
        Column → `Text`, or a dict of its options, which says how its text becomes numbers of tokens; or columns, of
        whose text words become numbers.
    dtypes
        Column or field → dtype, where it is not to be found out: of numbers, or ``"str"`` for text.
    delimiter
        Between two values; None takes a tab for ``.tsv`` and ``.tab``, else the one of comma, tab, semicolon and bar
        that occurs most often in the first line.
    quote
        Around values that hold delimiters, quotes (doubled) or line ends; None where quotes are characters as others.
        ``"auto"`` takes ``"``, and None where tabs stand between values, unless the beginning of the first file has the
        same number of columns in each record only where quotes are heeded: that format has no quotes (IANA's
        text/tab-separated-values), and in free text a quote that begins a value would take in all up to the next.
    header
        True where files begin with the names of their columns, False where they do not, which calls them
        ``column_0`` and so on; or the names, for files without.
    skip_lines
        Lines at the beginning of each file that are no part of the table.
    missing
        Words that stand for a missing number; None for those that pyarrow knows (empty, ``NA``, ``NaN``, ``null``,
        ...). Text is never missing.
    encoding
        Of the files.
    on_error
        What becomes of a row that cannot be read: ``"raise"``, or ``"skip"``, which lists it in the report.

    Raises
    ------
    InvalidArgumentError
        If an option breaks its rule.
    StoreNotFoundError
        If a file is not there.

    Examples
    --------
    >>> import oocload
    >>> with open("flowers.csv", "w") as file:
    ...     _ = file.write("length,width,species\\n5.1,3.5,setosa\\n6.4,3.2,versicolor\\n")
    >>> source = oocload.sources.CsvSource("flowers.csv", features=True, label="species")
    >>> oocload.convert(source, "flowers.h5").fields
    ('x', 'y')

    """

    skips = True

    def __init__(
        self,
        paths: stores.Paths,
        *,
        columns: Sequence[str] | None = None,
        features: Features = None,
        label: str | None = None,
        labels: Labels = None,
        text: Texts = None,
        dtypes: Mapping[str, DTypeLike] | None = None,
        delimiter: str | None = None,
        quote: str | None = AUTO,
        header: bool | Sequence[str] = True,
        skip_lines: int = 0,
        missing: Sequence[str] | None = None,
        encoding: str = "utf-8",
        on_error: OnError = "raise",
    ) -> None:
        check_on_error(on_error)
        self.on_error = on_error
        found = stores.expand(paths, "source")
        for path in found:
            if not os.path.isfile(path):
                raise StoreNotFoundError(f"source must exist, got {path!r}; no file lies at that path")
        self.label = found[0] if len(found) == 1 else f"{found[0]} and others"
        self._choice = TableChoice.checked(columns, features, label, labels, text, dtypes)
        self._asked = _checked_dialect(delimiter, quote, header, skip_lines, missing, encoding)
        self._facts = CsvFacts(found, self._asked, self._choice)
        self.identity_is_proof = not self._choice.has_function

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path ends as those of delimited text do."""
        return stem_suffix(path) in SUFFIXES and os.path.isfile(path)

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of files, with default options."""
        return cls(paths)

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        """Field → spec, as the beginning of the first file tells."""
        return {field.name: field.spec for field in self._facts.fields}

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → text or vocabulary; the latter may take a pass over the files."""
        return {field.name: field.meaning for field in self._complete if field.meaning != Meaning()}

    @property
    def least_piece_nbytes(self) -> int:
        """What a block takes that has room for the longest record of the first MiB, and more."""
        return self._facts.least_nbytes(self._wanted)

    def record_identity(self) -> Identity:
        """Return sizes and times of the files, and the options."""
        return {
            "files": [file_facts(path) for path in self._facts.paths],
            "choice": self._choice.describe(),
            "dialect": self._asked.describe(),
        }

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[Block]:
        """Yield blocks of whole records."""
        del start, stop
        _ = self._complete  # the vocabularies, before many threads ask for them
        yield from self._facts.blocks(self._facts.block_nbytes(piece_nbytes, self._wanted))

    def read(self, piece: Block, scratch: Scratch) -> Records:
        """Return the fields of a block."""
        del scratch
        fields = self._complete

        def make(table: Any) -> dict[str, Any]:
            return {field.name: field.rows(table) for field in fields}

        rows, skipped = self._facts.parser.rows(piece, columns_of(fields), make, self.on_error == "skip")
        piece.release()
        return Records(rows, skipped)

    @cached_property
    def _wanted(self) -> tuple[ColumnField, ...]:
        """The fields that were chosen."""
        names = self._names({field.name: None for field in self._facts.fields})
        return tuple(field for field in self._facts.fields if field.name in names)

    @cached_property
    def _complete(self) -> tuple[ColumnField, ...]:
        """The same with their vocabularies, which may take a pass over the files."""

        def tables(columns: list[str]) -> Iterator[Any]:
            for block in self._facts.blocks(PASS_NBYTES):
                yield self._facts.parser.rows(block, columns, lambda table: table, self.on_error == "skip")[0]
                block.release()

        return complete(self._wanted, tables, self.label)


def _checked_dialect(
    delimiter: str | None,
    quote: str | None,
    header: bool | Sequence[str],
    skip_lines: int,
    missing: Sequence[str] | None,
    encoding: str,
) -> Dialect:
    for name, character in (("delimiter", delimiter), ("quote", None if quote == AUTO else quote)):
        if character is not None and not (isinstance(character, str) and len(character.encode()) == 1):
            raise InvalidArgumentError(f"{name} must be one ASCII character or None, got {character!r}")
        if character in ("\n", "\r"):
            raise InvalidArgumentError(f"{name} must not end lines, got {character!r}")
    if not isinstance(header, bool) and (not is_names(header) or len(set(header)) < len(header)):
        raise InvalidArgumentError(f"header must be True, False or a list of names, each once, got {header!r}")
    whole_number("skip_lines", skip_lines, 0)
    if missing is not None and not is_names(missing):
        raise InvalidArgumentError(f"missing must be a list of words, got {missing!r}")
    try:
        "a".encode(encoding)  # which those refuse that are not of text
        encoding = codecs.lookup(encoding).name
    except (LookupError, TypeError, UnicodeError) as exc:
        raise InvalidArgumentError(f"encoding must be one that Python knows, got {encoding!r}") from exc
    names = header if isinstance(header, bool) else tuple(header)
    words = None if missing is None else tuple(missing)
    return Dialect(delimiter, quote, names, skip_lines, encoding, words)

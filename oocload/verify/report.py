"""What a check found, for programs and for people."""

from __future__ import annotations

from dataclasses import dataclass

from oocload.units import format_bytes


@dataclass(frozen=True, slots=True)
class BadChunk:
    """A chunk that is not what was written, or an array or file of which as much can be said.

    Attributes
    ----------
    field
        Name of the array; of ragged and sparse fields, of the one of their arrays that it is. Empty of a whole file.
    chunk
        Its number in C order of the chunk grid; None of a whole array or file.
    rows
        First row and the one after the last that it holds a part of; of damaged checksums, of all chunks that they
        were for. None of a whole array or file.
    path
        The file that holds it, or the store where that is not known.
    offset
        Byte of the file at which it begins, where that is known.
    why
        What is wrong.

    """

    field: str
    chunk: int | None
    rows: tuple[int, int] | None
    path: str
    offset: int | None
    why: str

    def __str__(self) -> str:
        what = [self.field] if self.field else []
        what += [] if self.chunk is None else [f"chunk {self.chunk}"]
        what += [] if self.rows is None else [f"rows {self.rows[0]} to {self.rows[1]}"]
        where = self.path if self.offset is None else f"{self.path} at byte {self.offset}"
        return " ".join(f"{', '.join([*what, f'in {where}'])}: {self.why}".split())


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a check of a store found; print it.

    Attributes
    ----------
    path
        The store, or the first of several.
    n_chunks
        Chunks that have checksums and were looked at.
    nbytes
        Their stored bytes.
    seconds
        Wall time.
    bad
        All that is wrong.
    unchecked
        Arrays without checksums, as ``"store.h5::name"``: they were not looked at.
    permutation_of
        The source whose rows the store was to hold; empty where none was given.
    difference
        How its rows differ from those; empty where they do not.

    """

    path: str
    n_chunks: int
    nbytes: int
    seconds: float
    bad: tuple[BadChunk, ...] = ()
    unchecked: tuple[str, ...] = ()
    permutation_of: str = ""
    difference: str = ""

    @property
    def ok(self) -> bool:
        """Whether all that has checksums is what was written, and rows are those of the source that was given."""
        return not self.bad and not self.difference

    def __str__(self) -> str:
        lines = [f"bad: {one}" for one in self.bad]
        if self.unchecked:
            lines.append(f"without checksums, so not checked: {', '.join(self.unchecked)}")
        if self.permutation_of:
            same = "it has exactly its rows, in some order" if not self.difference else f"bad: {self.difference}"
            lines.append(f"{self.path} as a permutation of {self.permutation_of}: {same}")
        speed = f", {format_bytes(self.nbytes / self.seconds)}/s" if self.seconds else ""
        found = "all as they were written" if not self.bad else f"{len(self.bad):,} bad"
        chunks = f"{self.n_chunks:,} chunks ({format_bytes(self.nbytes)} stored)"
        lines.append(f"verified {self.path}: {chunks}, {found}; {self.seconds:.1f} s{speed}")
        return "\n".join(lines)

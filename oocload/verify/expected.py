"""What the manifest of an array says that its chunks are, as far as the manifest itself is whole."""

from __future__ import annotations

from dataclasses import dataclass, field

from oocload.errors import StoreFormatError
from oocload.layout import ChunkGrid, FieldLayout
from oocload.stores.base import Store
from oocload.stores.checksums import (
    PREFIX,
    SEGMENT_CHUNKS,
    ArrayChecksums,
    Segment,
    codec_texts,
    decode_segment,
    dtype_text,
    segment_name,
    written,
)


@dataclass
class Problem:
    """What is wrong with an array, apart from single chunks: and of which chunks, where not of all."""

    why: str
    first: int | None = None
    stop: int | None = None


@dataclass
class Expected:
    """The checksums of an array.

    Attributes
    ----------
    facts
        Shape, dtype and so on as the manifest says; None where no segment could be read.
    segments
        Those that could be read, in order.
    problems
        What is wrong with the manifest, or between it and the array.
    comparable
        Whether the chunks of the array are those that the manifest numbers.

    """

    facts: ArrayChecksums | None = None
    segments: list[Segment] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    comparable: bool = False

    @property
    def nbytes(self) -> int:
        """Stored bytes of all chunks."""
        return sum(int(written(segment.nbytes).sum()) for segment in self.segments) if self.comparable else 0


def expected_of(store: Store, name: str) -> Expected | None:
    """Return what the manifest says about an array, compared with its layout; None where there is none."""
    blobs = store.notes(name, PREFIX)
    if not blobs:
        return None
    expected = Expected()
    found: dict[int, ArrayChecksums] = {}
    lost: set[int] = set()
    for key, blob in sorted(blobs.items(), key=lambda item: (len(item[0]), item[0])):
        try:
            one = decode_segment(blob, key)
        except StoreFormatError as exc:
            number = int(digits) if (digits := key.removeprefix(PREFIX)).isdecimal() else None
            lost |= set() if number is None else {number}
            expected.problems.append(_problem_of_segment(number, f"its checksums cannot be read: {exc}"))
            continue
        found[one.segments[0].first // SEGMENT_CHUNKS] = one
    if not found:
        return expected
    last = max(found)
    expected.facts = found[last]
    expected.segments = [found[number].segments[0] for number in sorted(found)]
    for number in range(-(-expected.facts.n_chunks // SEGMENT_CHUNKS)):
        if number not in found and number not in lost:
            expected.problems.append(_problem_of_segment(number, f"its checksums {segment_name(number)} are missing"))
    _compare(expected, store.field(name), shape_is_known=not lost or last > max(lost))
    return expected


def _problem_of_segment(number: int | None, why: str) -> Problem:
    if number is None:
        return Problem(why)
    return Problem(why, number * SEGMENT_CHUNKS, (number + 1) * SEGMENT_CHUNKS)


def _compare(expected: Expected, layout: FieldLayout, shape_is_known: bool) -> None:
    """Note where the array is another one than the manifest speaks of."""
    facts = expected.facts
    assert facts is not None
    if layout.read_path == "none":
        expected.problems.append(Problem(f"it cannot be read any more: {layout.reason}"))
        return
    pairs = [
        ("dtype is", dtype_text(layout.stored_dtype), facts.dtype),
        ("chunks are", str(layout.chunks), str(facts.chunks)),
        ("codecs are", str(list(codec_texts(layout))), str(list(facts.codecs))),
    ]
    if shape_is_known or layout.shape[1:] != facts.shape[1:]:
        pairs.insert(0, ("shape is", str(layout.shape), str(facts.shape)))
    for what, is_now, was in pairs:
        if is_now != was:
            expected.problems.append(Problem(f"its {what} {is_now}, and {was} when its checksums were taken"))
    expected.comparable = layout.chunks == facts.chunks and layout.shape[1:] == facts.shape[1:]


def rows_of(grid: ChunkGrid, chunk: int) -> tuple[int, int]:
    """Return the rows that a chunk holds a part of."""
    start = chunk // grid.per_band * grid.chunks[0] if grid.per_band else 0
    return start, min(grid.shape[0], start + grid.chunks[0])

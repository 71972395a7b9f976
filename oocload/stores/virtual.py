"""HDF5 virtual datasets that put rows of their sources one after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import h5py


class RowMapping(NamedTuple):
    """Rows ``start`` to ``stop`` of a virtual dataset are the source's rows from ``source_start``."""

    start: int
    stop: int
    source_file: str
    source_name: str
    source_start: int
    source_rows: int | None  # None: as many as the source has


def row_mappings(dataset: h5py.Dataset) -> list[RowMapping] | None:
    """Return the mappings in order, or None where they do anything but put whole rows one after the other."""
    mappings = []
    for source in dataset.virtual_sources():
        place = _row_range(source.vspace, dataset.shape[1:])
        if place is None:
            return None
        if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
            start, rows = 0, None
        elif (found := _row_range(source.src_space, dataset.shape[1:])) is not None:
            start, rows = found[0], found[1] - found[0]
        else:
            return None
        if rows not in (None, place[1] - place[0]) or "%" in source.file_name + source.dset_name:
            return None
        mappings.append(RowMapping(*place, source.file_name, source.dset_name, start, rows))
    mappings.sort()
    at = 0
    for mapping in mappings:
        if mapping.start != at:  # rows that no source covers, or that two cover
            return None
        at = mapping.stop
    return mappings if mappings and at == dataset.shape[0] else None


def _row_range(space: Any, row_shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return (start, stop) where a selection is of whole rows side by side, else None."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return (0, space.shape[0]) if space.shape and space.shape[1:] == row_shape else None
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS or not space.is_regular_hyperslab():
        return None
    starts, strides, counts, blocks = space.get_regular_hyperslab()
    sizes = []
    for stride, count, block in zip(strides, counts, blocks, strict=True):
        if count < 1 or count > 2**62 or block > 2**62 or (count > 1 and stride != block):
            return None
        sizes.append(count * block)
    if any(starts[1:]) or tuple(sizes[1:]) != row_shape:
        return None
    return int(starts[0]), int(starts[0] + sizes[0])

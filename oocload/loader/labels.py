"""Whether the labels of a store are mixed by the window, looked at before training on a sample of its blocks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.read import FieldReader
from oocload.chunks.scratch import Scratch
from oocload.chunks.target import Places
from oocload.errors import ShuffleQualityWarning, warn
from oocload.layout import FieldLayout
from oocload.loader.batch import BatchForm
from oocload.loader.options import Setup
from oocload.loader.prepared import as_stored
from oocload.plan.blocks import BlockGrid
from oocload.plan.epoch import PlanOptions
from oocload.plan.quality import POOR_ENTROPY, drawn_entropy
from oocload.plan.shuffle import permutation
from oocload.units import format_bytes

_SAMPLED_BLOCKS = 512
_STRETCHES = 4  # of each block
_STRETCH_ROWS = 128
_GOOD_ENTROPY = 0.9  # of the labels, with the window that is proposed
_WINDOWS = 8  # drawn from the sample


def label_field(form: BatchForm, fields: Mapping[str, FieldLayout]) -> str | None:
    """Return the field that holds one label per row: the targets, where they are whole numbers or text."""
    if len(form.parts) < 2 or not isinstance(form.parts[1], str):
        return None
    field = fields[form.parts[1]]
    discrete = field.dtype.kind in "biuSU" and (len(field.shape) == 1 or field.shape[1:] == (1,))
    return field.name if discrete and field.ragged is None else None


def warn_of_runs(setup: Setup, options: PlanOptions, n_blocks: int, readers: Mapping[str, FieldReader]) -> bool:
    """Warn where the blocks that a batch mixes hold too few of the labels; return whether that was so.

    Parameters
    ----------
    setup, options
        Of the loader.
    n_blocks
        Blocks that its window has.
    readers
        Field → reader.

    """
    if setup.label is None or not setup.shuffle or setup.balance is not None or options.n_windows == 1:
        return False
    name = setup.label
    sample = _Sample(options.grid, *as_stored(setup.feeds[name], readers[name]))
    if sample.n_labels < 2 or sample.n_labels > len(sample.codes) / 2:  # numbers of rows rather than labels
        return False
    uniform = sample.entropy(options.batch_rows)
    windows = 1 + options.dealt  # that a batch mixes
    mixed = windows * n_blocks
    if uniform == 0 or mixed >= sample.n_blocks:
        return False
    relative = sample.expected(mixed, options.batch_rows) / uniform
    if relative >= POOR_ENTROPY:
        return False
    enough = mixed
    while enough < sample.n_blocks and sample.expected(enough, options.batch_rows) / uniform < _GOOD_ENTROPY:
        enough *= 2
    window_rows = -(-enough // windows) * options.pool.block_rows
    nbytes = window_rows * setup.row_nbytes
    warn(
        f"equal labels of field {name!r} lie in runs that the window cannot mix: a batch has {relative:.2f} of "
        f"the label entropy of a uniform shuffle; set shuffle=oocload.Shuffle(window_rows={window_rows}) "
        f"({format_bytes(nbytes)} a window; give memory= at least 4 times that), or balanced={name!r}",
        ShuffleQualityWarning,
    )
    return True


class _Sample:
    """Labels of some rows of some blocks."""

    def __init__(self, grid: BlockGrid, field: FieldLayout, reader: FieldReader) -> None:
        blocks = np.sort(permutation(grid.n_blocks, 0, 0, 0)[:_SAMPLED_BLOCKS])
        starts, stops = grid.borders(blocks)
        parts = np.linspace(starts, stops, _STRETCHES + 1).astype(np.int64)
        lows = parts[:-1].T.ravel()
        highs = np.minimum(parts[1:].T.ravel(), lows + _STRETCH_ROWS)
        rows = np.empty((int((highs - lows).sum()), *field.row_shape), field.dtype)
        ranges = [(low, high) for low, high in zip(lows.tolist(), highs.tolist(), strict=True) if low < high]
        reader.read(ranges, Places(rows), Scratch())
        labels, self.codes = np.unique(rows.reshape(-1), return_inverse=True)
        self.n_labels = len(labels)
        self.n_blocks = len(blocks)
        self._ends = np.cumsum((highs - lows).reshape(-1, _STRETCHES).sum(axis=1))

    def entropy(self, batch_rows: int, codes: NDArray[np.int64] | None = None) -> float:
        """Return the expected entropy of labels in a batch of all rows, or of some."""
        counts = np.bincount(self.codes if codes is None else codes)
        return drawn_entropy(batch_rows, counts / counts.sum())

    def expected(self, n_blocks: int, batch_rows: int) -> float:
        """Return the expected entropy of labels in a batch that mixes so many blocks."""
        blocks = np.split(self.codes, self._ends[:-1])
        windows = (permutation(len(blocks), 0, window, 0)[:n_blocks] for window in range(_WINDOWS))
        return float(np.mean([self.entropy(batch_rows, np.concatenate([blocks[b] for b in w])) for w in windows]))

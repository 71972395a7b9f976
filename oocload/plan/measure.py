"""How well an order of rows is mixed, measured on the order itself: from integers, without reading a row.

Entropy as in scDataset (arXiv:2506.01883): of the source blocks in a batch, relative to a uniform shuffle's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oocload.plan.epoch import PlanOptions
from oocload.plan.quality import drawn_entropy, entropy_of_counts, shuffled_entropy
from oocload.plan.sample import Draws
from oocload.plan.select import Selection
from oocload.plan.windows import Plan

_BATCHES = 2048  # of an epoch that are looked at, at most
_SLABS = 64  # from which they are taken, evenly spaced
_UNIFORM_DISPLACEMENT = 1 / 3  # mean distance of two uniform numbers from 0 to 1


@dataclass(frozen=True, slots=True)
class ShuffleQuality:
    """How well one epoch is mixed; print it.

    Attributes
    ----------
    batches
        Batches looked at: all full ones of the epoch, or a sample.
    blocks_per_batch
        Distinct source blocks in a batch, mean.
    relative_entropy
        Entropy of the source blocks in a batch, mean, relative to a uniform shuffle's: 1.0 is a perfect shuffle, 0.0 is
        batches from one block each.
    rank_correlation
        Spearman's, of position in the epoch and row in the store: 0.0 for a shuffle, 1.0 in order.
    relative_displacement
        Mean distance of a row's position in the epoch from that in the store, relative to a uniform shuffle's: 1.0 for
        a shuffle, 0.0 in order.
    label_run_rows
        Rows of a run of equal labels in the store, mean; None without a field of labels.
    label_entropy
        Entropy of the labels in a batch, mean, in nats.
    relative_label_entropy
        The same, relative to a uniform shuffle's.

    """

    batches: int
    blocks_per_batch: float
    relative_entropy: float
    rank_correlation: float
    relative_displacement: float
    label_run_rows: float | None = None
    label_entropy: float | None = None
    relative_label_entropy: float | None = None

    def __repr__(self) -> str:
        lines = [
            f"blocks in a batch: {self.blocks_per_batch:.1f}, entropy {self.relative_entropy:.2f} of a shuffle's",
            f"position against row: rank correlation {self.rank_correlation:+.2f} (0 in a shuffle), mean displacement "
            f"{self.relative_displacement:.2f} of a uniform shuffle's",
        ]
        if self.label_run_rows is not None:
            lines.append(
                f"labels: runs of {self.label_run_rows:,.1f} rows in the store; entropy in a batch "
                f"{self.label_entropy:.2f} nats, {self.relative_label_entropy:.2f} of a uniform shuffle's"
            )
        return "\n".join(lines)


def measure(
    options: PlanOptions, selection: Selection, epoch: int, codes: NDArray[np.integer] | None = None
) -> ShuffleQuality:
    """Return how well an epoch is mixed.

    Parameters
    ----------
    options
        Of the order.
    selection
        The rows that the loader has.
    epoch
        Which epoch.
    codes
        Label of each row of the store, from 0, shape (rows of the store,).

    """
    plan = options.plan(epoch)
    numbers = _sample(options, plan)
    cum = np.concatenate([[0], np.cumsum(selection.counts)])
    blocks, entropies, label_entropies, places, sources = [], [], [], [], []
    for number in numbers:
        rows = plan.batch_rows(number)
        group = np.searchsorted(selection.starts, rows, side="right") - 1
        counts = np.unique(group, return_counts=True)[1]
        blocks.append(len(counts))
        entropies.append(entropy_of_counts(counts))
        within = (rows - selection.starts[group]) / (selection.stops[group] - selection.starts[group])
        sources.append((cum[group] + within * selection.counts[group]) / selection.n_rows)
        places.append((number * options.batch_rows + np.arange(len(rows))) / options.n_rows)
        if codes is not None:
            label_entropies.append(entropy_of_counts(np.bincount(codes[rows])))
    draws = options.pool if isinstance(options.pool, Draws) else None
    batch_rows = len(places[0])  # fewer than in a full batch, where there is none
    if draws is None:
        uniform = shuffled_entropy(batch_rows, selection.counts)
    else:
        uniform = drawn_entropy(batch_rows, draws.shares)
    place, source = np.concatenate(places), np.concatenate(sources)
    quality = {
        "batches": len(numbers),
        "blocks_per_batch": float(np.mean(blocks)),
        "relative_entropy": float(np.mean(entropies)) / uniform if uniform else 1.0,
        "rank_correlation": _spearman(place, source),
        "relative_displacement": float(np.abs(place - source).mean()) / _UNIFORM_DISPLACEMENT,
    }
    if codes is not None:
        runs, counts = _labels(selection, codes, draws)
        expected = drawn_entropy(batch_rows, counts / counts.sum()) if draws else shuffled_entropy(batch_rows, counts)
        found = float(np.mean(label_entropies))
        quality |= {
            "label_run_rows": runs,
            "label_entropy": found,
            "relative_label_entropy": found / expected if expected else 1.0,
        }
    return ShuffleQuality(**quality)  # type: ignore[arg-type]


def _sample(options: PlanOptions, plan: Plan) -> list[int]:
    """Return numbers of batches: all full ones, or some of slabs all over the epoch."""
    n_full = options.n_batches - (options.n_rows < options.n_batches * options.batch_rows)
    if n_full <= _BATCHES:
        return list(range(max(1, n_full)))
    slabs = [plan.slab(n) for n in np.unique(np.linspace(0, plan.n_slabs - 1, _SLABS).astype(int)).tolist()]
    total = sum(slab.n_batches for slab in slabs)
    numbers: list[int] = []
    for slab in slabs:
        n_taken = -(-slab.n_batches * _BATCHES // max(total, _BATCHES))
        numbers += (slab.first_batch + np.arange(n_taken) * slab.n_batches // max(1, n_taken)).tolist()
    return [number for number in numbers if number < n_full]


def _labels(selection: Selection, codes: NDArray[np.integer], draws: Draws | None) -> tuple[float, NDArray[np.int64]]:
    """Return the mean length of runs of equal labels, and how often each comes: rows, or their weight."""
    changes, last = 0, -1
    counts = np.zeros(int(codes.max()) + 1, np.int64)
    for _, rows in selection.row_pieces():
        labels = codes[rows].astype(np.int64)
        changes += int(np.count_nonzero(np.diff(labels, prepend=last)))
        last = int(labels[-1])
        weights = None if draws is None else draws.weights_of(rows)
        counts += np.bincount(labels, weights, minlength=len(counts)).astype(np.int64)
    return selection.n_rows / changes, counts


def _spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the rank correlation of two sequences."""
    if len(first) < 2:
        return 0.0
    ranks = [np.argsort(np.argsort(v, kind="stable"), kind="stable").astype(np.float64) for v in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])

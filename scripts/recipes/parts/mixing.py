"""How well batches were mixed, from the numbers and the labels of the rows that came, whoever delivered them."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field

import numpy as np


@dataclass
class Delivered:
    """Row numbers and labels of each batch, in the order in which they came."""

    rows: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray, labels: np.ndarray) -> None:
        """Note a batch."""
        self.rows.append(np.array(rows))
        self.labels.append(np.array(labels))


@dataclass(frozen=True)
class Mixing:
    """Of one epoch; of labels and displacement relative to a shuffle of the whole store."""

    chunks_per_batch: float
    label_entropy: float
    rank_correlation: float
    displacement: float

    def shown(self) -> dict[str, str]:
        """Return the columns of a table."""
        return {
            "chunks in a batch": f"{self.chunks_per_batch:.1f}",
            "entropy of labels": f"{self.label_entropy:.2f}",
            "rank correlation": f"{self.rank_correlation:+.2f}",
            "displacement": f"{self.displacement:.2f}",
        }


def mixing(delivered: Delivered, labels: np.ndarray, chunk_rows: int) -> Mixing:
    """Return how well an epoch was mixed.

    Parameters
    ----------
    delivered
        Its batches.
    labels
        Of all rows of the store, in its order.
    chunk_rows
        Rows of a chunk of the store.

    Raises
    ------
    ValueError
        A row did not come exactly once, or with another label than it has in the store.

    """
    order = np.concatenate(delivered.rows)
    if not np.array_equal(np.sort(order), np.arange(len(labels))):
        raise ValueError("every row must come exactly once")
    if not np.array_equal(np.concatenate(delivered.labels), labels[order]):
        raise ValueError("every row must come with its label")
    chunks, entropy, correlation, displacement = _figures(delivered.rows, labels, chunk_rows)
    entropy /= uniform(labels, chunk_rows, len(delivered.rows[0]))[1] or 1.0
    return Mixing(chunks, entropy, correlation, displacement)


def uniform(labels: np.ndarray, chunk_rows: int, batch_size: int) -> tuple[float, float]:
    """Return how many chunks are in a batch, and the entropy of its labels, where the whole store is shuffled."""
    order = np.random.default_rng(0).permutation(len(labels))
    batches = np.split(order, range(batch_size, len(order), batch_size))
    return _figures(batches, labels, chunk_rows)[:2]


def mean(found: list[Mixing]) -> Mixing:
    """Return the mean over epochs."""
    return Mixing(*np.mean([astuple(m) for m in found], axis=0).tolist())


def _figures(batches: list[np.ndarray], labels: np.ndarray, chunk_rows: int) -> tuple[float, float, float, float]:
    order = np.concatenate(batches)
    place = np.arange(len(order))
    return (
        float(np.mean([len(np.unique(rows // chunk_rows)) for rows in batches])),
        float(np.mean([_entropy(labels[rows]) for rows in batches])),
        float(np.corrcoef(place, order)[0, 1]),
        float(np.abs(place - order).mean() / (len(order) / 3)),
    )


def _entropy(labels: np.ndarray) -> float:
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(-(shares * np.log(shares)).sum())

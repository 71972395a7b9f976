"""What does padding cost: rows of 100 tokens, beside `pad_sequences` on lists and a plain copy of the padded bytes?"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
from consumers import ratio
from limits import on_all_cores
from numpy.typing import NDArray

import oocload
from oocload import Pad
from oocload.chunks.items import pad_rows

WIDTH = 100
BATCH_ROWS = 256
N_ROWS, QUICK_ROWS = 400_000, 4_000
_LIST_ROWS = 20_000  # of Python lists, of which more only take longer
_COPY_NBYTES = 2**22  # at a time, as the tasks of a loader are


def padding(folder: Path, rounds: int, quick: bool = False) -> dict[str, Any]:
    """Measure one epoch of each in turn, on int32 tokens in the page cache: rows of 50 to 150, cut at 100.

    Returns
    -------
    dict
        Rows per second of ``pad_sequences`` (batches of lists), ``kernel`` (rows in memory, one thread), ``copy`` and
        ``copy, all cores`` (the padded bytes of as much memory as a slab), and of loaders that pad to one length, to
        the longest row of a batch, and of a batch of rows of like length; ratios round by round.

    """
    from keras.utils import pad_sequences

    n_rows = QUICK_ROWS if quick else N_ROWS
    rng = np.random.default_rng(0)
    lengths = rng.integers(50, 151, n_rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = rng.integers(1, 30_000, int(offsets[-1]), dtype="int32")
    path = folder / "padding.h5"
    oocload.convert({"x": (tokens, offsets)}, path, codec="none")
    lists = [tokens[a:b].tolist() for a, b in itertools.pairwise(offsets[: _LIST_ROWS + 1].tolist())]
    options: dict[str, Any] = {"x": "x", "seed": 0, "memory": "1 GiB"}
    loaders = {
        "loader, one length": oocload.Loader(path, BATCH_ROWS, ragged=Pad(WIDTH), **options),
        "loader, longest": oocload.Loader(path, BATCH_ROWS, ragged=Pad(WIDTH, static=False), **options),
        "loader, buckets": oocload.Loader(path, BATCH_ROWS, ragged=Pad(), bucket_by_length=True, **options),
        "loader, values": oocload.Loader(path, BATCH_ROWS, **options),
    }
    by_lists = partial(pad_sequences, maxlen=WIDTH, padding="post", truncating="post", dtype="int32")
    try:
        _check(loaders, by_lists, tokens, offsets)
        starts, kept = offsets[:-1], np.minimum(lengths, WIDTH)
        window = np.empty((min(n_rows, loaders["loader, one length"].window_rows), WIDTH), np.int32)
        runs: dict[str, Callable[[], int]] = {
            "pad_sequences": partial(_of_lists, by_lists, lists),
            "kernel": partial(_of_arrays, tokens, starts, kept, window),
            "copy": partial(_copies, window, n_rows, 1),
            "copy, all cores": partial(_copies, window, n_rows, machine.n_cores()),
            **{name: partial(_epoch, loader, n_rows) for name, loader in loaders.items()},
        }
        for run in runs.values():
            run()
        rates = machine.by_round(runs, rounds, gc.collect)
        shares = {name: loader.stats.padded_share for name, loader in loaders.items()}
    finally:
        for loader in loaders.values():
            loader.close()
        path.unlink()
    beside = {"kernel": "copy", "loader, one length": "copy, all cores", "loader, longest": "copy, all cores"}
    return {
        "n_rows": n_rows,
        "width": WIDTH,
        "batch_rows": BATCH_ROWS,
        "rows_per_s": {name: machine.spread(values) for name, values in rates.items()},
        "times_pad_sequences": {n: ratio(rates[n], rates["pad_sequences"]) for n in rates if n != "pad_sequences"},
        "of_copy": {name: ratio(rates[name], rates[copy]) for name, copy in beside.items()},
        "padded_share": shares,
    }


def _check(
    loaders: dict[str, oocload.Loader], by_lists: Callable[..., Any], tokens: NDArray[Any], offsets: NDArray[np.int64]
) -> None:
    """Fail unless loaders give what Keras makes of the same rows."""
    for name, loader in loaders.items():
        for number, x in enumerate(loader):
            rows = [tokens[offsets[r] : offsets[r + 1]] for r in loader.batch_rows(number)]
            if isinstance(x, oocload.Ragged):
                np.testing.assert_array_equal(x.values, np.concatenate(rows))
            else:
                expected = by_lists([row.tolist() for row in rows], maxlen=x.shape[1])
                np.testing.assert_array_equal(x, expected, err_msg=name)
            if number == 20:
                break
        loader.go_to(0, 0)


def _of_lists(by_lists: Callable[..., Any], lists: list[list[int]]) -> int:
    for first in range(0, len(lists), BATCH_ROWS):
        by_lists(lists[first : first + BATCH_ROWS])
    return len(lists)


def _of_arrays(tokens: NDArray[Any], starts: NDArray[np.int64], kept: NDArray[np.int64], room: NDArray[Any]) -> int:
    for first in range(0, len(starts), len(room)):
        last = min(len(starts), first + len(room))
        pad_rows(tokens, starts[first:last], kept[first:last], room[: last - first])
    return len(starts)


class _Source:
    """What is copied: memory as large as that which it goes to."""

    room: NDArray[Any] | None = None

    @classmethod
    def like(cls, room: NDArray[Any]) -> NDArray[Any]:
        if cls.room is None or cls.room.shape != room.shape:
            cls.room = np.ones_like(room)
        return cls.room


def _copies(room: NDArray[Any], n_rows: int, n_threads: int) -> int:
    source = _Source.like(room)
    step = max(1, _COPY_NBYTES // room[0].nbytes)
    parts = [partial(np.copyto, room[i : i + step], source[i : i + step]) for i in range(0, len(room), step)]
    n_passes = max(1, round(n_rows / len(room)))
    on_all_cores(parts * n_passes, n_threads)
    return n_passes * len(room)


def _epoch(loader: Iterable[Any], n_rows: int) -> int:
    for _ in loader:
        pass
    return n_rows

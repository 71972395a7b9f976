"""Slabs: the memory of one window, leased out and taken back when the last view of it dies.

A lease hands out a root array over the slab's memory. Batches are views of it, and NumPy, PyTorch (`from_numpy`) and
TensorFlow (DLPack) all keep the root alive through their views, so a finalizer on the root knows when to recycle.
"""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.ragged import REFERENCE
from oocload.chunks.scratch import align
from oocload.errors import KeptBatchesWarning, warn
from oocload.layout import FieldLayout
from oocload.loader.arena import NONE, Arenas
from oocload.loader.budget import Budget


class KeptBatches:
    """Tells the user, once, that memory goes beyond the ceiling as batches are kept."""

    def __init__(self) -> None:
        self.told = False

    def tell(self) -> None:
        """Warn, if nobody has yet."""
        if self.told:
            return
        self.told = True
        warn(
            "batches are kept after the next one was asked for, or two iterators of one loader run at once, so "
            "memory goes beyond the ceiling; copy what you keep (batch.copy()), or make a loader for each iterator",
            KeptBatchesWarning,
        )


Prepare = Callable[[int, int], Callable[[], None]]
"""Given a slab's address and bytes, does something for it, and returns what undoes that."""


class Pool(ABC):
    """Where a pipeline has its slabs from.

    Attributes
    ----------
    slab_nbytes
        Size of each.
    poll_s
        How often to ask whether one is free, where nobody notifies; None where the condition is notified.
    apart
        Whether destinations of rows lie elsewhere, since other processes see the slab.

    """

    slab_nbytes: int
    poll_s: float | None = None
    apart = False

    @abstractmethod
    def available(self) -> bool:
        """Whether a lease would succeed; call it under the condition."""

    @abstractmethod
    def lease(self, beyond: bool = False) -> NDArray[np.uint8]:
        """Return the root array of a slab; call it under the condition, when one is `available`."""

    @abstractmethod
    def filled(self, number: int, error: BaseException | None) -> None:
        """Note that what this process reads of the ``number``-th slab is there, or why it never will be."""

    @abstractmethod
    def gather(self, number: int) -> None:
        """Wait for what others read of it."""

    @abstractmethod
    def check(self) -> None:
        """Raise if others that are waited for have ended."""


class SlabPool(Pool):
    """A fixed number of slabs of one size, made when they are first needed.

    Parameters
    ----------
    slab_nbytes, n_slabs
        Size and number.
    budget
        Counts them.
    condition
        Notified when a slab comes back.
    part
        Under which name they are counted.

    """

    def __init__(
        self, slab_nbytes: int, n_slabs: int, budget: Budget, condition: threading.Condition, part: str = "slabs"
    ) -> None:
        self.slab_nbytes = max(1, slab_nbytes)
        self._part = part
        self._n_left = n_slabs
        self._budget = budget
        self._condition = condition
        self._free: list[mmap.mmap] = []
        self._closed = False
        self._pid = os.getpid()
        self._prepare: Prepare | None = None
        self._undo: dict[int, Callable[[], None]] = {}  # address → what is done before the memory goes
        _pools.add(self)

    def prepare(self, prepare: Prepare) -> None:
        """Have a function called with address and bytes of each slab; what it returns, before the slab goes."""
        self.rest()
        with self._condition:
            self._prepare = prepare

    def available(self) -> bool:
        """Whether a lease would succeed; call it under the condition."""
        return bool(self._free) or self._n_left > 0

    def lease(self, beyond: bool = False) -> NDArray[np.uint8]:
        """Return the root array of a slab; call it under the condition, when one is `available`.

        Parameters
        ----------
        beyond
            Make a slab beyond the fixed number; it is not kept when it comes back.

        """
        if beyond:
            memory, keep = self._make(), False
        elif self._free:
            memory, keep = self._free.pop(), True
        else:
            memory, keep = self._make(), True
            self._n_left -= 1
        root = np.frombuffer(memory, np.uint8)
        weakref.finalize(root, self._take_back, memory, keep).atexit = False
        return root

    def filled(self, number: int, error: BaseException | None) -> None:
        """Do nothing: whoever asks for the slab sees it."""

    def gather(self, number: int) -> None:
        """Do nothing: nobody else reads."""

    def check(self) -> None:
        """Do nothing: nobody else is waited for."""

    def rest(self) -> None:
        """Let go of the free slabs; they are made again when they are needed."""
        with self._condition:
            while self._free:
                self._let_go(self._free.pop())
                self._n_left += 1

    def forget_free(self) -> None:
        """Unmap what is free, in a forked child, where the lock may be held for ever."""
        if self._pid != os.getpid():
            self._free.clear()

    def close(self) -> None:
        """Let go of the free slabs for good; those in use go when their last view dies."""
        with self._condition:
            self._closed = True
            self.rest()

    def _make(self) -> mmap.mmap:
        # Anonymous pages of its own: page-aligned, and given back to the system when the slab goes.
        # Private, so that a forked child keeps what it sees.
        memory = mmap.mmap(-1, self.slab_nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if self.slab_nbytes >= _LEAST_HUGE_NBYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._budget.take(self._part, self.slab_nbytes)
        if self._prepare is not None:
            address = _address(memory)
            self._undo[address] = self._prepare(address, self.slab_nbytes)
        return memory

    def _let_go(self, memory: mmap.mmap) -> None:
        if self._undo:
            self._undo.pop(_address(memory), _nothing)()
        self._budget.give(self._part, self.slab_nbytes)

    def _take_back(self, memory: mmap.mmap, keep: bool) -> None:
        # Runs wherever the last view dies, perhaps inside a method here: the condition's lock is re-entrant.
        # In a forked child that lock may be held for ever by a thread that stayed behind.
        if self._pid != os.getpid():
            return
        with self._condition:
            prepared = self._prepare is None or _address(memory) in self._undo
            if keep and not self._closed and prepared:
                self._free.append(memory)
            else:
                self._n_left += keep and not self._closed
                self._let_go(memory)
            self._condition.notify_all()


class BatchCopies:
    """Memory for a few copies of batches beside the slabs, used again and again.

    Parameters
    ----------
    fields
        Of a batch.
    batch_rows, n_copies
        Rows of one copy, at most, and how many copies there are memory for.
    budget
        Counts them under "copies".
    condition
        Guards them.
    kept
        Tells the user where more are held.
    arenas
        What the items of ragged fields need.

    """

    def __init__(
        self,
        fields: Mapping[str, FieldLayout],
        batch_rows: int,
        n_copies: int,
        budget: Budget,
        condition: threading.Condition,
        kept: KeptBatches,
        arenas: Arenas = NONE,
    ) -> None:
        self._fields = fields
        self._arenas, self._items = arenas, arenas.left_over(batch_rows)
        self._pool = SlabPool(
            slab_nbytes(fields, batch_rows, 0, arenas.nbytes(self._items)), n_copies, budget, condition, "copies"
        )
        self._condition = condition
        self._kept, self._budget = kept, budget

    @property
    def batch_nbytes(self) -> int:
        """Size of one copy."""
        return self._pool.slab_nbytes

    def room(self, n_rows: int) -> dict[str, NDArray[Any]]:
        """Return arrays for some rows; their memory comes back when nobody looks at them."""
        with self._condition:
            beyond = not self._pool.available()
            root = self._pool.lease(beyond)
        if beyond and self._budget.held > self._budget.ceiling:
            self._kept.tell()
        return carve(root, self._fields, n_rows, 0, self._arenas, self._items)[1]

    def of(
        self, arrays: Mapping[str, NDArray[Any]], rows: slice | NDArray[np.int64], n_rows: int
    ) -> dict[str, NDArray[Any]]:
        """Return copies of some rows of each field."""
        copies = self.room(n_rows)
        for name, array in arrays.items():
            copies[name][...] = array[rows]
        return copies

    def prepare(self, prepare: Prepare) -> None:
        """Have a function called with each memory that is made."""
        self._pool.prepare(prepare)

    def close(self) -> None:
        """Let go of what is free."""
        self._pool.close()


def forget_free_slabs() -> None:
    """Unmap the free slabs of all pools; for a forked child that is to read nothing."""
    for pool in list(_pools):
        pool.forget_free()


_pools: weakref.WeakSet[SlabPool] = weakref.WeakSet()

# Slabs of this size and more lie in huge pages: the first touch of a window costs a third of the time, and the first
# batch comes 1.3 times as early (benchmarks/overheads.py).
_HUGE_PAGE_NBYTES = 2 * 2**20
_LEAST_HUGE_NBYTES = 16 * 2**20
_INDEX_NBYTES = 8  # a row's destination


def slab_nbytes(fields: Mapping[str, FieldLayout], n_rows: int, index_rows: int, items_nbytes: int = 0) -> int:
    """Return the size of a slab for rows of some fields, and for the destinations of rows while they are read."""
    nbytes = align(_INDEX_NBYTES * index_rows) + sum(align(_row_nbytes(f) * n_rows) for f in fields.values())
    nbytes += items_nbytes
    return nbytes if nbytes < _LEAST_HUGE_NBYTES else -(-nbytes // _HUGE_PAGE_NBYTES) * _HUGE_PAGE_NBYTES


def _address(memory: mmap.mmap) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def _nothing() -> None:
    """Undo nothing."""


def _let_go(_: NDArray[np.uint8]) -> None:
    """Do nothing: whoever was to call this held the slab until now."""


def _row_nbytes(field: FieldLayout) -> int:
    """Return the bytes of a row of a slab; the items of ragged rows lie apart."""
    return field.dtype.itemsize if field.dtype == REFERENCE else field.row_nbytes


def carve(
    root: NDArray[np.uint8],
    fields: Mapping[str, FieldLayout],
    n_rows: int,
    index_rows: int,
    arenas: Arenas = NONE,
    items: Mapping[str, int] = MappingProxyType({}),
) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Return room for destinations, and one array of ``n_rows`` rows per field; each begins at an aligned address.

    Behind them lie the items of ragged rows, as many of each field as ``items`` says.
    """
    offset = _INDEX_NBYTES * index_rows
    index = root[:offset].view(np.int64)
    offset = align(offset)
    arrays: dict[str, Any] = {}
    for name, field in fields.items():
        nbytes = _row_nbytes(field) * n_rows
        if field.dtype.hasobject:  # its room in the slab stays untouched, and stands for what the objects take
            arrays[name] = np.empty((n_rows, *field.row_shape), field.dtype)
            weakref.finalize(arrays[name], _let_go, root).atexit = False  # and the slab is not free before they go
            offset += align(nbytes)
            continue
        arrays[name] = root[offset : offset + nbytes].view(field.dtype).reshape(n_rows, *field.row_shape)
        offset += align(nbytes)
    for name, n_items in items.items():
        arrays[name] = arenas.of[name].carve(root[offset:], arrays[name], n_items)
        offset += arenas.of[name].nbytes(n_items)
    return index, arrays

"""The loader: options in, batches out. Order comes from `plan`, bytes from `chunks`, read-ahead from `pipeline`."""

from __future__ import annotations

import operator
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

import oocload.stores as stores
from oocload.errors import ClosedError, InvalidArgumentError
from oocload.forks import renew_in_child
from oocload.layout import FieldLayout
from oocload.loader.access import BatchAccess
from oocload.loader.batch import Batch, BatchForm, check_fields, choose_form
from oocload.loader.runtime import Runtime, Setup, settle
from oocload.loader.state import check_state, make_state
from oocload.loader.stats import Stats
from oocload.loader.windows import Window, windows
from oocload.loader.world import detect
from oocload.plan.epoch import EpochPlan, count_batches
from oocload.plan.ranks import Share, Uneven
from oocload.plan.shuffle import Shuffle
from oocload.stores.base import Store
from oocload.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from oocload.adapters.keras import KerasDataset


class Loader:
    """Batches of a store, shuffled, inside a memory ceiling.

    Each ``for`` over it is one epoch, and the next ``for`` is the next epoch. An epoch reads each chunk once, and
    yields every row exactly once. The order is a pure function of (store layout, options, window, seed, epoch).

    Parameters
    ----------
    store
        A path (``"train.h5"``, ``"train.zarr"``, ``"train.npy"``, ``"train.h5::group"``), a glob or a list of paths to
        join along axis 0 (see `oocload.open`), or an open `Store`.
    batch_size
        Rows per batch, from 1 to the rows of the store.
    x, y
        Field name → an array; list of names → a dict of arrays. Without both, a store with fields ``x`` and ``y``
        gives ``(x, y)``, any other a dict of all fields. With ``x`` alone, batches are ``x`` alone.
    sample_weight
        Field whose array becomes the third part of each batch.
    shuffle
        True, False, or `Shuffle` with explicit knobs.
    seed
        From 0 to 2**64 - 1; None draws one, which `repr` and the state show.
    memory
        Ceiling on all that oocload holds: bytes, or text such as ``"512 MiB"``. None takes a quarter of the available
        memory, at most 2 GiB, or what the default window needs where that is more.
    drop_last
        Leave out the last batch where it is not full.
    transform
        Called with each batch, as it would be delivered; what it returns is delivered.
    threads
        Threads that read and decode; None takes one per core that this process may use.
    rank, world_size
        Of this process in a data-parallel job: each rank reads its own rows, ``batch_size`` of them per batch, and all
        ranks have equally many batches. None takes both from `torch.distributed`, `jax.distributed`, ``TF_CONFIG`` or
        the variables of torchrun, MPI and Slurm; a process that none of them speaks of reads everything. All ranks
        need the same seed, which must be given.
    uneven
        Where ranks do not divide the rows: ``"pad"`` repeats a few, fewer than there are ranks, ``"drop"`` leaves as
        few out, others each epoch, ``"error"`` refuses.

    Raises
    ------
    InvalidArgumentError, MemoryCeilingError, UnknownFieldError, StoreNotFoundError, StoreFormatError
        If an argument breaks its rule or the store cannot be read; raised here, not at the first batch.

    Notes
    -----
    Batches are views of a slab that is recycled when the last of them dies: use them and let go, or copy what you
    keep. One loader may be used from several threads; it pickles as its options and position.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> rows = np.arange(1000, dtype="float32").reshape(100, 10)
    >>> _ = oocload.convert({"x": rows, "y": np.arange(100)}, "rows.h5")
    >>> with oocload.Loader("rows.h5", batch_size=32, seed=0) as loader:
    ...     [len(y) for x, y in loader]
    [32, 32, 32, 4]

    """

    def __init__(
        self,
        store: stores.Paths | Store,
        batch_size: int,
        *,
        x: str | Sequence[str] | None = None,
        y: str | Sequence[str] | None = None,
        sample_weight: str | None = None,
        shuffle: bool | Shuffle = True,
        seed: int | None = None,
        memory: int | str | None = None,
        drop_last: bool = False,
        transform: Callable[[Any], Any] | None = None,
        threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Uneven = "pad",
    ) -> None:
        _check_options(shuffle, drop_last, transform)
        batch_size = _whole_number("batch_size", batch_size, 1)
        seed = None if seed is None else _whole_number("seed", seed, 0, 2**64 - 1)
        threads = None if threads is None else _whole_number("threads", threads, 1)
        ceiling = None if memory is None else parse_bytes(memory, "memory")
        share = _share(rank, world_size, uneven)
        if shuffle and seed is None and share.world_size > 1:
            raise InvalidArgumentError(
                f"seed must be given where there are ranks (this is rank {share.rank} of {share.world_size}), the same "
                "on each: they would draw different ones and read the same rows twice"
            )
        self._seed_given = seed is not None
        self._owns_store = not isinstance(store, Store)
        self._store = store if isinstance(store, Store) else stores.open(store)
        try:
            self._form = choose_form(self._store, x, y, sample_weight)
            fields = check_fields(self._store, self._form.names)
            self._transform = transform
            self.renew_locks()
            self._epoch, self._batch, self._begun = 0, 0, False
            self._access: BatchAccess | None = None
            self._setup = Setup(
                fields=fields,
                batch_size=batch_size,
                shuffle=shuffle,
                seed=secrets.randbits(63) if seed is None else seed,
                ceiling=ceiling,
                drop_last=drop_last,
                threads=threads or len(os.sched_getaffinity(0)),
                share=share,
            )
            self._own(settle(self._store, self._setup))
        except BaseException:
            if self._owns_store:
                self._store.close()
            raise
        self._closed = False

    # Batches

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return count_batches(self._runtime.options)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over one epoch: the rest of a loaded one, or the next."""
        return self._deliver(endless=False)

    def forever(self) -> Iterator[Batch]:
        """Iterate over epoch after epoch without end; ``len(loader)`` steps are one epoch."""
        return self._deliver(endless=True)

    def __getitem__(self, index: int) -> Batch:
        """Return batch ``index`` of the current epoch, the same as iteration would.

        Each call decodes the window that holds the batch, unless the call before needed the same one. The arrays are
        fresh copies.

        Raises
        ------
        IndexError
            If there is no such batch.

        """
        n_batches = len(self)
        try:
            index = operator.index(index)
        except TypeError:
            message = f"index must be a whole number, got {index!r}; slices are not supported"
            raise InvalidArgumentError(message) from None
        if not -n_batches <= index < n_batches:
            raise IndexError(f"index must be from {-n_batches} to {n_batches - 1}, got {index}")
        with self._lock:
            runtime = self._usable()
            if self._access is None or self._access.runtime is not runtime:
                self._access = BatchAccess(runtime)
            batch = self._form.build(self._access.get(self._epoch, index % n_batches))
        return batch if self._transform is None else self._transform(batch)

    def slabs(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Iterate over one epoch as `__iter__` does, many batches at a time; what adapters are built on.

        Yields
        ------
        dict
            Field → array of whole batches, one after the other (the epoch's last may be short); views of a slab that
            is recycled when the last of them dies. No transform is applied. The state counts a slab as delivered
            when the next one is asked for.

        """
        stats = self._usable().stats
        for window in self._windows(endless=False):
            start = window.skip * window.batch_rows
            epoch, after = window.epoch, window.first_batch + window.n_batches
            n_rows, n_batches = window.n_rows - start, window.n_batches - window.skip
            arrays = {name: array[start : window.n_rows] for name, array in window.arrays.items()}
            del window
            yield arrays
            del arrays
            self._note(epoch, after)
            stats.add_batch(n_rows, n_batches)

    def batch_rows(self, index: int) -> NDArray[Any]:
        """Return the store's row numbers of batch ``index`` of the current epoch; reads nothing.

        Returns
        -------
        ndarray of int64, shape (rows of the batch,)
            In the order in which the batch has them.

        """
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}")
        return EpochPlan(self._runtime.options, self._epoch).batch_rows(index)

    @property
    def epoch(self) -> int:
        """The epoch that is under way, or that the next ``for`` begins where none is."""
        return self._epoch

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands: a few integers, and a fingerprint of store and options.

        The position is that of the batch after the last one delivered.
        """
        with self._lock:
            return self._state_at(*self._normalised(self._epoch, self._batch))

    def load_state_dict(self, state: Any) -> None:
        """Go to where a state stands: the next ``for`` yields exactly what was still to come.

        The state's window is adopted, and its seed where this loader was made without one.

        Raises
        ------
        StateError
            If the state belongs to another store, or to other options; says what differs.
        MemoryCeilingError
            If the ceiling is too small for the state's window.

        """
        with self._lock:
            identity = self._identity()
            adopt_seed = not self._seed_given and isinstance(state, dict) and isinstance(state.get("seed"), int)
            if adopt_seed:
                identity["seed"] = state["seed"]
            epoch, batch, window_blocks = check_state(state, identity, len(self))
            options = self._runtime.options
            if (identity["seed"], window_blocks) != (options.seed, options.window_blocks):
                setup = replace(self._setup, seed=identity["seed"], window_blocks=window_blocks)
                self._restart(setup)
            self._epoch, self._batch = self._normalised(epoch, batch)
            self._begun = False

    def _identity(self) -> dict[str, Any]:
        o = self._runtime.options
        return {
            "store": self._store.fingerprint(self._form.names),
            "n_rows": o.grid.n_rows,
            "blocks": o.grid.fingerprint,
            "batch_size": o.batch_rows,
            "shuffle": o.shuffle,
            "seed": o.seed,
            "drop_last": o.drop_last,
            "world_size": o.share.world_size,
            "uneven": o.share.uneven,
        }

    def begin_state(self) -> dict[str, Any]:
        """Return the state from which the next ``for`` begins: what `state_dict` gives, or the next epoch's start."""
        with self._lock:
            return self._state_at(*((self._epoch + 1, 0) if self._begun else (self._epoch, self._batch)))

    def _normalised(self, epoch: int, batch: int) -> tuple[int, int]:
        """Return a position; the end of an epoch is the start of the next."""
        return (epoch, batch) if batch < len(self) else (epoch + 1, 0)

    def _state_at(self, epoch: int, batch: int) -> dict[str, Any]:
        return make_state(self._identity(), epoch, batch, self._runtime.options.window_blocks)

    # Facts

    @property
    def fields(self) -> Mapping[str, FieldLayout]:
        """Field → layout, of the chosen fields."""
        return self._setup.fields

    @property
    def form(self) -> BatchForm:
        """Which fields a batch has, and how they are arranged."""
        return self._form

    @property
    def transform(self) -> Callable[[Any], Any] | None:
        """The function that each batch passes through."""
        return self._transform

    @property
    def n_rows(self) -> int:
        """Rows of the store."""
        return self._runtime.options.grid.n_rows

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch: those of the store, or this rank's share of them."""
        return self._runtime.options.n_rows

    @property
    def drop_last(self) -> bool:
        """Whether the last batch is left out where it is not full."""
        return self._setup.drop_last

    @property
    def stats(self) -> Stats:
        """What was read, how fast, who waited, and the memory held; print it."""
        return self._runtime.stats

    @property
    def batch_size(self) -> int:
        """Rows per batch."""
        return self._setup.batch_size

    @property
    def window_rows(self) -> int:
        """Rows of one window: the pool in which rows are shuffled."""
        o = self._runtime.options
        return min(o.n_rows, o.window_blocks * o.grid.mean_rows)

    @property
    def memory(self) -> int:
        """The ceiling in bytes."""
        return self._runtime.budget.ceiling

    def __repr__(self) -> str:
        o, r = self._runtime.options, self._runtime
        order = f"shuffled with seed {o.seed}" if o.shuffle else "in order"
        window = f"{o.window_blocks} of {r.n_blocks} blocks of {o.grid.mean_rows} rows"
        if o.shuffle:
            nbytes = self.window_rows * self._setup.row_nbytes
            window += f", {format_bytes(nbytes)}; batch entropy {r.relative_entropy:.2f} of a uniform shuffle's"
        batches = f"{len(self):,} batches of {o.batch_rows}"
        ranks = f", rank {o.share.rank} of {o.share.world_size}" if o.share.world_size > 1 else ""
        lines = [
            f"Loader({self._store.address!r}): {self.epoch_rows:,} rows in {batches}, {order}{ranks}",
            f"  window: {window}",
            f"  memory: ceiling {format_bytes(r.budget.ceiling)}, of which {format_bytes(r.fit.needed)} are needed "
            f"({r.fit.n_slabs} slabs, {r.fit.n_threads} threads)",
            *(f"  field {name!r}: {path}" for name, path in self.stats.paths.items()),
        ]
        return "\n".join(lines)

    # Frameworks

    def to_keras(self) -> KerasDataset:
        """Return a ``keras.utils.PyDataset`` over this loader, for ``fit``, ``evaluate`` and ``predict``.

        Raises
        ------
        MissingPackageError
            If Keras is not installed.

        """
        from oocload.adapters.keras import to_keras

        return to_keras(self)

    def to_tf(self) -> Any:
        """Return a ``tf.data.Dataset`` of one epoch's batches; iterating it again is the next epoch.

        Whole slabs are handed to TensorFlow without copying. Element spec and cardinality are exact. `state_dict`
        counts whole slabs, when TensorFlow has taken all batches of one: a resume may repeat some, never skip any.

        Raises
        ------
        MissingPackageError
            If TensorFlow is not installed.
        InvalidArgumentError
            If a field has a dtype that TensorFlow lacks.

        """
        from oocload.adapters.tf_data import to_tf

        return to_tf(self)

    # Life cycle

    def close(self) -> None:
        """Stop what runs, close files and let go of memory; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._access = None
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "store": self._store,
            "form": self._form,
            "transform": self._transform,
            "setup": replace(self._setup, window_blocks=self._runtime.options.window_blocks),
            "position": (self._epoch, self._batch, self._begun),
            "seed_given": self._seed_given,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._store, self._form, self._transform = state["store"], state["form"], state["transform"]
        self._setup, self._seed_given = state["setup"], state["seed_given"]
        self._epoch, self._batch, self._begun = state["position"]
        self.renew_locks()
        self._access = None
        self._owns_store = True
        self._closed = False
        self._own(settle(self._store, self._setup))

    def renew_locks(self) -> None:
        """Make the lock, or replace it in a forked child."""
        self._lock = threading.RLock()
        renew_in_child(self)

    def _usable(self) -> Runtime:
        """Return the runtime; in a forked child, a new one (threads and locks stay in the parent)."""
        if self._closed:
            raise ClosedError("loader must be open, and it was closed; make a new one")
        if self._runtime.pid != os.getpid():
            self._access = None
            self._restart(replace(self._setup, window_blocks=self._runtime.options.window_blocks))
        return self._runtime

    def _restart(self, setup: Setup) -> None:
        runtime = settle(self._store, setup)
        self._finalizer.detach()
        if self._runtime.pid == os.getpid():
            self._runtime.close()
        self._setup, self._access = setup, None
        self._own(runtime)

    def _own(self, runtime: Runtime) -> None:
        """Keep a runtime; what it holds goes when this loader is closed or forgotten."""
        self._runtime = runtime
        self._finalizer = weakref.finalize(self, _close, runtime, self._store if self._owns_store else None)
        self._finalizer.atexit = False

    # Delivery

    def _begin(self) -> tuple[Runtime, int, int]:
        """Settle where an iteration starts: where a state was loaded, or at the next epoch."""
        runtime = self._usable()
        with self._lock:
            if self._begun:
                self._epoch, self._batch = self._epoch + 1, 0
            self._begun = True
            if self._access is not None:
                self._access.close()
                self._access = None
            return runtime, self._epoch, self._batch

    def _note(self, epoch: int, batch: int) -> None:
        """Remember the position after a delivered batch; at an epoch's end that is the next epoch's start."""
        self._epoch, self._batch = epoch, batch

    def _finish(self, epoch: int) -> None:
        with self._lock:
            if self._epoch == epoch:
                self._epoch, self._batch, self._begun = epoch + 1, 0, False

    def _windows(self, endless: bool) -> Iterator[Window]:
        """Yield decoded windows from where the loader stands; what every adapter is built on."""
        runtime, epoch, batch = self._begin()
        stats = runtime.stats
        stats.begin_pass()
        with closing(windows(runtime, epoch, batch, endless)) as stream:
            while True:
                began = time.perf_counter()
                window = next(stream, None)
                stats.wait_s += time.perf_counter() - began
                if window is None:
                    break
                yield window
                del window  # its slab is free for the next but one as soon as the consumer lets go of its batches
        self._finish(epoch)

    def _deliver(self, endless: bool) -> Iterator[Batch]:
        form, transform, stats = self._form, self._transform, self._usable().stats
        for window in self._windows(endless):
            for number, start, stop in window.batches():
                batch = form.slice(window.arrays, start, stop)
                self._note(window.epoch, number + 1)
                stats.add_batch(stop - start)
                yield batch if transform is None else transform(batch)
                del batch
            del window


def _close(runtime: Runtime, store: Store | None) -> None:
    runtime.close()
    if store is not None:
        store.close()


def _share(rank: int | None, world_size: int | None, uneven: Uneven) -> Share:
    """Return this process's share of the rows, detected where nobody says."""
    if (rank is None) != (world_size is None):
        raise InvalidArgumentError(
            f"rank and world_size must be given together, got rank={rank!r} and world_size={world_size!r}"
        )
    if rank is None or world_size is None:
        return Share(*detect(), uneven)
    return Share(_whole_number("rank", rank, 0), _whole_number("world_size", world_size, 1), uneven)


def _check_options(shuffle: Any, drop_last: Any, transform: Any) -> None:
    if not isinstance(shuffle, bool | Shuffle):
        raise InvalidArgumentError(f"shuffle must be True, False or an oocload.Shuffle, got {shuffle!r}")
    if not isinstance(drop_last, bool):
        raise InvalidArgumentError(f"drop_last must be True or False, got {drop_last!r}")
    if transform is not None and not callable(transform):
        raise InvalidArgumentError(f"transform must be a function of one batch, got {transform!r}")


def _whole_number(name: str, value: Any, low: int, high: int | None = None) -> int:
    """Return an integer, also from NumPy's, within its bounds."""
    rule = f"of at least {low}" if high is None else f"from {low} to 2**64 - 1"
    number = None
    if not isinstance(value, bool):
        with suppress(TypeError):
            number = operator.index(value)
    if number is None or number < low or (high is not None and number > high):
        raise InvalidArgumentError(f"{name} must be a whole number {rule}, got {value!r}")
    return number

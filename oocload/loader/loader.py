"""The loader: options in, batches out. Order comes from `plan`, bytes from `chunks`, read-ahead from `pipeline`."""

from __future__ import annotations

import os
import secrets
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

from numpy.typing import ArrayLike, NDArray

import oocload.stores as stores
from oocload.errors import ClosedError, InvalidArgumentError
from oocload.layout import FieldLayout
from oocload.loader.access import BatchAccess
from oocload.loader.assemble import Assemble
from oocload.loader.batch import Batch, BatchForm, Cut, check_fields, choose_form
from oocload.loader.columns import read_classes, read_weights
from oocload.loader.filled import Slab, SlabStream
from oocload.loader.handle import StoreHandle
from oocload.loader.labels import label_field
from oocload.loader.named_sets import rows_of_sets
from oocload.loader.numbered import NumberedBatches
from oocload.loader.options import Setup, Workers, check_flags, check_sampling, check_share, check_workers, print_of
from oocload.loader.padding import Rule
from oocload.loader.prepared import check_ops, prepared
from oocload.loader.ragged import check_bucket, deliver
from oocload.loader.rows import SplitBy, select, split
from oocload.loader.runtime import Runtime
from oocload.loader.settle import settle
from oocload.loader.shown import shown
from oocload.loader.slabs import Prepare
from oocload.loader.source import BatchSource
from oocload.loader.state import check_state, identity_of, make_state
from oocload.loader.stats import Stats
from oocload.loader.tally import Tally
from oocload.loader.team import Team
from oocload.loader.together import batches_of_worker
from oocload.loader.transform import Numbered, Stage, Stages, Transforms, stages_of
from oocload.ops.base import Op
from oocload.plan.measure import ShuffleQuality, measure
from oocload.plan.ranks import Uneven
from oocload.plan.select import Selection
from oocload.plan.shuffle import Shuffle
from oocload.plan.windows import Plan
from oocload.stores.base import Store
from oocload.units import parse_bytes, whole_number


class Loader(BatchSource):
    """Batches of a store, shuffled, inside a memory ceiling.

    Each ``for`` over it is one epoch, and the next ``for`` is the next epoch. An epoch reads each chunk once, and
    yields every row exactly once. The order is a pure function of (store layout, options, window, seed, epoch).

    Parameters
    ----------
    store
        A path (``"train.h5"``, ``"train.zarr"``, ``"train.npy"``, ``"train.h5::group"``), a glob or a list of paths to
        join along axis 0 (see `oocload.open`), or an open `Store`.
    batch_size
        Rows per batch, at least 1. The last batch of an epoch has what is left, and is the only one where there are
        fewer rows than that.
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
        Called with each batch, as it would be delivered; what it returns is delivered. Arrays in it must have the
        batch's rows on axis 0. One that requires a second argument, or names one ``rng``, is given a NumPy generator
        that is a pure function of seed, epoch, batch and rank. `map` adds another.
    transform_workers
        Where transforms run: None, in a thread ahead of the consumer, one batch after the other; ``"threads"``, in as
        many as read, so that they must be thread-safe; 0, in the consumer's thread; from 1, in so many processes, for
        code that holds the GIL. See ``docs/transforms.md``.
    threads
        Threads that read and decode; None takes one per core that this process may use.
    rank, world_size
        Of this process in a data-parallel job: each rank reads its own rows, ``batch_size`` of them per batch, and all
        ranks have equally many batches. None takes both from `torch.distributed`, `jax.distributed`, ``TF_CONFIG`` or
        the variables of torchrun, MPI and Slurm; a process that none of them speaks of reads everything. All ranks
        need the same seed, which must be given.
    uneven
        Where ranks (or ``Shuffle(streams=)``) do not divide the rows: ``"pad"`` repeats a few, fewer than there are
        ranks, ``"drop"`` leaves as few out, others each epoch, ``"error"`` refuses.
    weights
        Name of a field, or an array of one number for each row of the store: rows are drawn with replacement, in
        proportion to it; an epoch has as many rows as without.
    balanced
        Name of a field of labels: every batch has equally many rows of each class, of which ``batch_size`` must be a
        multiple. An epoch has as many batches as without: rows of rare classes are repeated, of frequent ones each
        epoch takes others.
    ops
        Field → an operation from `oocload.ops`, or several, through which each of its rows passes while it is written
        to its place. Batches, slabs and ``fields`` have the shape and dtype that they make; order and state are those
        without them.

    ragged
        How ragged rows become arrays: `Pad`, or ``"values"``, which gives `Ragged` (values, offsets) and is the default
        (HDF5's rows of variable length stay arrays of arrays without it); or a dict of field → one of these.
    sparse
        Give sparse matrices as ``scipy.sparse.csr_array`` rather than as dense rows.
    bucket_by_length
        Put rows of like length into one batch, so that padding is small: rows of each window are sorted by length, and
        its batches come in random order. True, or the field whose lengths count where several are ragged.
    split
        Name of a set of rows, such as ``"train"``, or several: those of the store's field ``split``, which converters
        write of a partition. Its values are text, or numbers with a vocabulary (see `oocload.create`).

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
        transform: Callable[..., Any] | None = None,
        transform_workers: Workers = None,
        threads: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Uneven = "pad",
        weights: str | ArrayLike | None = None,
        balanced: str | None = None,
        ragged: Rule | Mapping[str, Rule] | None = None,
        sparse: bool = False,
        bucket_by_length: bool | str = False,
        ops: Mapping[str, Op | Sequence[Op]] | None = None,
        split: str | Sequence[str] | None = None,
    ) -> None:
        check_flags(shuffle, drop_last)
        stages = stages_of(() if transform is None else (transform,))
        transform_workers = check_workers(transform_workers)
        operations = check_ops(ops)
        check_sampling(shuffle, weights, balanced)
        batch_size = whole_number("batch_size", batch_size, 1)
        seed = None if seed is None else whole_number("seed", seed, 0, 2**64 - 1)
        threads = None if threads is None else whole_number("threads", threads, 1)
        ceiling = None if memory is None else parse_bytes(memory, "memory")
        share = check_share(rank, world_size, uneven, shuffle, batch_size)
        if shuffle and seed is None and share.world_size > 1:
            raise InvalidArgumentError(
                f"seed must be given where there are ranks (this is rank {share.rank} of {share.world_size}), the same "
                "on each: they would draw different ones and read the same rows twice"
            )
        self._seed_given = seed is not None
        opened = not isinstance(store, Store)
        self._handle = StoreHandle(stores.open(store) if not isinstance(store, Store) else store, opened)
        try:
            form = choose_form(self._store, x, y, sample_weight)
            fields = check_fields(self._store, form.names)
            delivery = deliver(form, fields, ragged, sparse)
            n_rows = next(iter(fields.values())).n_rows
            given = None if weights is None else read_weights(self._store, weights, n_rows)
            balance = None if balanced is None else read_classes(self._store, balanced, n_rows, "balanced")
            setup = Setup(
                feeds=prepared(delivery.feeds, operations, self._store),
                batch_size=batch_size,
                shuffle=shuffle,
                seed=secrets.randbits(63) if seed is None else seed,
                ceiling=ceiling,
                drop_last=drop_last,
                threads=threads or len(os.sched_getaffinity(0)),
                share=share,
                label=label_field(form, fields),
                weights=given,
                balance=balance,
                drawn=print_of(given, balance),
                transform_workers=transform_workers,
                rules=delivery.rules,
                bucket=check_bucket(bucket_by_length, delivery, shuffle, share),
            )
            marked = None if split is None else rows_of_sets(self._store, split, n_rows)
            self._start(delivery.form, stages, setup)
            if marked is not None:
                self._restrict(marked)
        except BaseException:
            self._handle.release()
            raise

    def _restrict(self, marked: NDArray[Any]) -> None:
        """Keep only the rows that are marked."""
        try:
            chosen = select(self._runtime.options.grid, self._runtime.selection, marked)
            self._restart(replace(self._setup, selection=chosen))
        except BaseException:
            self._finalizer.detach()
            self._runtime.close()
            raise

    def _start(self, form: BatchForm, stages: Stages, setup: Setup) -> None:
        """Settle on what is read, at the beginning of epoch 0."""
        super().__init__()
        self._form, self._stages, self._setup = form, stages, setup
        self._made_in = os.getpid()
        self._tally = Tally()
        self._before = (Stage(Assemble(form, setup.rules, self._tally)),) if setup.rules else ()
        self._access: BatchAccess | None = None
        self._planned: Plan | None = None
        self._closed = False
        self._prepare: Prepare | None = None
        self._own(settle(self._store, setup, self._tally))

    @property
    def _store(self) -> Store:
        return self._handle.store

    # Batches

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._runtime.options.n_batches

    def __getitem__(self, index: int) -> Batch:
        """Return batch ``index`` of the current epoch, the same as iteration would.

        Each call decodes the windows that the batch mixes, unless the call before needed the same. The arrays are
        fresh copies.

        Raises
        ------
        IndexError
            If there is no such batch.

        """
        with self._lock:
            return self.batch_at(self.epoch, self.number(index))

    def batch_at(self, epoch: int, number: int, wider: int = 0) -> Batch:
        """Return a batch of an epoch, wherever the loader stands; rows padded to the longest by so many items more."""
        with self._lock:
            runtime = self._usable()
            if self._access is None or self._access.runtime is not runtime:
                self._access = BatchAccess(runtime)
            batch = self._form.build(self._access.get(epoch, number))
        if (transform := self.transform) is None:
            return batch
        if wider and self._before:
            assemble = Stage(Assemble(self._form, self._setup.rules, self._tally, wider))
            transform = replace(transform, stages=(assemble, *self._stages))
        made = transform.applied(Numbered(epoch, number, self.rows_of(number), batch))
        runtime.stats.transform_s += made.took_s
        return made.batch

    def slabs(self) -> Generator[dict[str, NDArray[Any]]]:
        """Iterate over one epoch as `__iter__` does, many batches at a time; what adapters are built on.

        Yields
        ------
        dict
            Field → array of whole batches, one after the other (the epoch's last may be short); views of a slab that
            is recycled when the last of them dies. No transform is applied. The state counts a slab as delivered
            when the next one is asked for.

        """
        stats = self._usable().stats
        for turn, slab in self._slabs(endless=False):
            epoch, after = slab.epoch, slab.first_batch + slab.n_batches
            n_rows, n_batches = slab.n_rows - slab.skip * slab.batch_rows, slab.n_batches - slab.skip
            arrays = slab.rows()
            del slab
            yield arrays
            del arrays
            self._note(turn, epoch, after)
            stats.add_batch(n_rows, n_batches)

    def batches_of_worker(
        self, team: Team, copy: Callable[[Mapping[str, NDArray[Any]], int], Any]
    ) -> Generator[tuple[int, Any]]:
        """Yield (number, copy) of the batches that fall to one of several processes that read an epoch together."""
        return batches_of_worker(self._usable(), team, len(self), copy)

    def batch_rows(self, index: int) -> NDArray[Any]:
        """Return the store's row numbers of batch ``index`` of the current epoch; reads nothing.

        Returns
        -------
        ndarray of int64, shape (rows of the batch,)
            In the order in which the batch has them.

        """
        number = self.number(index)
        with self._lock:
            epoch = self.epoch
            if self._planned is None or self._planned.epoch != epoch:
                self._planned = self._runtime.options.plan(epoch)
            if self._runtime.buckets is None:
                return self._planned.batch_rows(number)
            buckets = self._usable().buckets
            assert buckets is not None
            return buckets.batch_rows(self._planned, number)

    # State

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
            position = check_state(state, identity, len(self))
            options = self._runtime.options
            here = (options.seed, options.window_blocks, options.deal)
            if (identity["seed"], position.window_blocks, position.deal) != here:
                changed = {"seed": identity["seed"], "window_blocks": position.window_blocks, "deal": position.deal}
                self._restart(replace(self._setup, **changed))
            self.pass_lengths.clear()
            self.go_to(position.epoch, position.batch)

    def _identity(self) -> dict[str, Any]:
        return identity_of(self._store.fingerprint(self._setup.sources), self._setup, self._runtime.options)

    def _state_at(self, epoch: int, batch: int) -> dict[str, Any]:
        o = self._runtime.options
        return make_state(self._identity(), epoch, batch, o.window_blocks, o.deal)

    # Rows

    @overload
    def split(
        self, *fractions: float, by: SplitBy | None = None, stratify: str | None = None, seed: int = 0
    ) -> tuple[Loader, ...]: ...

    @overload
    def split(self, *parts: Sequence[Any] | NDArray[Any], ids: str | None = None) -> tuple[Loader, ...]: ...

    @overload
    def split(
        self,
        parts: Mapping[Any, Any],
        /,
        *,
        by: SplitBy | None = None,
        stratify: str | None = None,
        ids: str | None = None,
        seed: int = 0,
    ) -> dict[Any, Loader]: ...

    def split(
        self,
        *parts: Any,
        by: SplitBy | None = None,
        stratify: str | None = None,
        ids: str | None = None,
        seed: int = 0,
    ) -> Any:
        """Return loaders of parts of the rows, which share none, whatever the epoch.

        Parameters
        ----------
        parts
            Fractions, each above 0 and together at most 1; or lists of row numbers, one per part; or one dict of
            either, name → part.
        by
            Of fractions: ``"blocks"`` takes whole blocks, so that no chunk is read for two parts but at their borders;
            ``"rows"`` takes single rows, and every part reads every block. None takes rows where a part would have
            fewer than 4 blocks.
        stratify
            Of fractions: a field of labels of which every part gets its fraction, by rows.
        ids
            A field that lists an identifier for each row, number or text: parts are then lists of identifiers.
        seed
            Of the choice; the same fractions with the same seed are the same rows, whatever the loader's own seed.

        Returns
        -------
        tuple of Loader, or dict of name → Loader
            Loaders with the options of this one, each with a ceiling of its own as high as this one's, of which a
            selection by rows takes a bit per row; making one takes more for a moment, 8 bytes for each identifier.
            The store stays open until the last of them is closed.

        Raises
        ------
        InvalidArgumentError, UnknownFieldError
            If fractions exceed 1, a part is empty, a row or identifier is unknown or comes twice, or a class has
            fewer rows than there are parts.

        Examples
        --------
        >>> import numpy as np, oocload
        >>> _ = oocload.convert({"x": np.zeros((100, 4)), "y": np.arange(100)}, "split.h5")
        >>> train, val = oocload.Loader("split.h5", batch_size=10, seed=0).split(0.8, 0.2)
        >>> train.n_rows, val.n_rows
        (80, 20)

        """
        grid, selection = self._runtime.options.grid, self._runtime.selection
        names, found = split(self._store, grid, selection, parts, by, stratify, ids, seed)
        children = self._children(found, names)
        return tuple(children) if names is None else dict(zip(names, children, strict=True))

    def select(self, rows: ArrayLike) -> Loader:
        """Return a loader of some rows of this one, with the same options.

        Parameters
        ----------
        rows
            Row numbers of the store, each once, in any order; or a mask, one flag for each row of the store.

        Raises
        ------
        InvalidArgumentError
            If a row is not in this loader or comes twice, or none is left.

        """
        chosen = select(self._runtime.options.grid, self._runtime.selection, rows)
        return next(iter(self._children([chosen])))

    def map(self, fn: Callable[..., Any]) -> Loader:
        """Return a loader of the same batches, passed through one function more; see `BatchSource.map`."""
        with self._lock:
            self._usable()
            self._follow()
            child = self._sibling((*self._stages, *stages_of((fn,), len(self._stages))), self._settled())
            child._epoch, child._batch, child._begun = self._epoch, self._batch, self._begun
            return child

    def _children(self, selections: Sequence[Selection], names: Sequence[Any] | None = None) -> list[Loader]:
        """Return loaders of parts of the rows."""
        self._usable()
        children: list[Loader] = []
        try:
            for selection in selections:
                setup = replace(self._setup, selection=selection, window_blocks=None, deal=None)
                children.append(self._sibling(self._stages, setup))
        except BaseException as exc:
            if len(selections) > 1:
                number = len(children)
                part = number if names is None else names[number]
                exc.add_note(f"this is part {part!r} of the split, of {selections[number].n_rows} rows")
            for child in children:
                child.close()
            raise
        return children

    def _sibling(self, stages: Stages, setup: Setup) -> Loader:
        """Return a loader that reads the same store."""
        child = object.__new__(type(self))
        child._seed_given = self._seed_given
        child._handle = self._handle.share()
        try:
            child._start(self._form, stages, setup)
        except BaseException:
            child._handle.release()
            raise
        return child

    def shuffle_quality(self) -> ShuffleQuality:
        """Return how well the current epoch is mixed, from its plan; reads no rows but the labels.

        Where batches are ``(x, y)`` and ``y`` is one whole number or text per row, that field is read whole, and the
        result says how long runs of equal labels are in the store, and how well batches mix them.
        """
        codes = None
        if self._setup.label is not None:
            codes = read_classes(self._store, self._setup.label, self._setup.store_rows, "y").codes
        return measure(self._usable().options, self._runtime.selection, self.epoch, codes)

    def prepare_slabs(self, prepare: Prepare) -> None:
        """Have a function called with address and bytes of each slab's memory; it returns what undoes it."""
        with self._lock:
            runtime = self._usable()
            self._prepare = prepare
            runtime.prepare_slabs(prepare)

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
    def assembled(self) -> Mapping[str, Rule | Literal["sparse"]]:
        """Ragged and sparse fields whose arrays are made when a batch is cut, and how."""
        return self._setup.rules

    @property
    def transform(self) -> Transforms | None:
        """The chain of functions that each batch passes through; None where there are none."""
        o = self._runtime.options
        stages = (*self._before, *self._stages)
        return Transforms(stages, o.seed, o.share.rank) if stages else None

    @property
    def n_rows(self) -> int:
        """Rows of the store, or of the part of it that this loader has."""
        return self._runtime.selection.n_rows

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch: those of the store, or this rank's share of them."""
        return self._runtime.options.n_rows

    @property
    def rank(self) -> int:
        """Of this process in the job."""
        return self._setup.share.rank

    @property
    def world_size(self) -> int:
        """Ranks of the job, of which this loader reads one's rows."""
        return self._setup.share.world_size

    @property
    def even(self) -> bool:
        """Whether all batches have `batch_size` rows."""
        return self.drop_last or self.epoch_rows % self.batch_size == 0

    @property
    def drop_last(self) -> bool:
        """Whether the last batch is left out where it is not full."""
        return self._setup.drop_last

    @property
    def spare_slabs(self) -> int:
        """Slabs that may be held for as long as one likes while reading goes on with the others."""
        return self._runtime.fit.n_slabs - 1 - self._runtime.options.dealt

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
        """Rows of one window, which are read together.

        A batch mixes the blocks of two windows where chunks are decoded whole and there is more than one window.
        """
        o = self._runtime.options
        return min(o.n_rows, self._runtime.window_blocks * o.pool.block_rows)

    @property
    def memory(self) -> int:
        """The ceiling in bytes."""
        return self._runtime.budget.ceiling

    def min_memory(self) -> int:
        """Return the smallest ceiling, in bytes, that works for this store, batch size and window.

        Without ``Shuffle(window_rows=)`` or a loaded state, that is with the smallest window, of one block or as many
        as hold a batch. A part of `split`, a pickled copy and a forked child keep the window of theirs, and count with
        it. What it is made of is written in ``docs/memory.md``. Reads nothing.
        """
        return self._runtime.min_memory

    def __repr__(self) -> str:
        return shown(self._store.address, self._runtime, self._setup, self._stages)

    # Life cycle

    def close(self) -> None:
        """Stop what runs, close files and let go of memory; a second call does nothing."""
        with self._lock:
            self._closed = True
            if self.board is not None:
                self.board.tidy()
            self._access = self._planned = None
            self._finalizer()

    def rest(self) -> None:
        """Let go of memory that is made again when it is needed: slabs and scratch that nobody uses."""
        if self._runtime.pid == os.getpid():
            self._runtime.rest()

    def __getstate__(self) -> dict[str, Any]:
        self._follow()
        return {
            "store": self._store,
            "form": self._form,
            "stages": self._stages,
            "setup": self._settled(),
            "position": (self._epoch, self._batch, self._begun),
            "seed_given": self._seed_given,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._handle = StoreHandle(state["store"], owned=True)
        self._seed_given = state["seed_given"]
        self._start(state["form"], state["stages"], state["setup"])
        self._epoch, self._batch, self._begun = state["position"]

    def _settled(self) -> Setup:
        """Return the options with the window that was chosen."""
        o = self._runtime.options
        return replace(self._setup, window_blocks=o.window_blocks, deal=o.deal)

    def _usable(self) -> Runtime:
        """Return the runtime; in a forked child, a new one (threads and locks stay in the parent)."""
        if self._closed:
            raise ClosedError("loader must be open, and it was closed; make a new one")
        if self._runtime.pid != os.getpid():
            self._access = self._prepare = None
            self._restart(self._settled())
        return self._runtime

    def _restart(self, setup: Setup) -> None:
        if self._runtime.pid == os.getpid():
            self._runtime.rest()  # for a while there are two
        runtime = settle(self._store, setup, self._tally)
        self._finalizer.detach()
        if self._runtime.pid == os.getpid():
            self._runtime.close()
        self._setup, self._access, self._planned = setup, None, None
        self._own(runtime)

    def _own(self, runtime: Runtime) -> None:
        """Keep a runtime; what it holds goes when this loader is closed or forgotten."""
        self._runtime = runtime
        if self._prepare is not None:
            runtime.prepare_slabs(self._prepare)
        self._finalizer = weakref.finalize(self, _close, runtime, self._handle)
        self._finalizer.atexit = False

    # Delivery

    def _slabs(self, endless: bool) -> Iterator[tuple[int, Slab]]:
        """Yield (this iteration's turn, filled slab) from where the loader stands; what every adapter is built on."""
        runtime = self._usable()
        epoch, batch, turn = self._begin_reading()
        for slab in self._stream(runtime, epoch, batch, endless):
            yield turn, slab
            del slab
        self._finish(turn, epoch)

    def _begin_reading(self) -> tuple[int, int, int]:
        """Return where an iteration starts, and its turn; let go of what was read by number."""
        with self._lock:
            begun = self._begin()
            if self._access is not None:
                self._access.close()
                self._access = None
        return begun

    def _stream(self, runtime: Runtime, epoch: int, batch: int, endless: bool) -> Iterator[Slab]:
        """Yield filled slabs from a position, timing the wait for each."""
        runtime.stats.begin_pass()
        with closing(SlabStream(runtime, epoch, batch, endless, timed=True)) as stream:
            for slab in stream:
                yield slab
                del slab  # its memory is free for another as soon as the consumer lets go of its batches

    def batches_from(self, epoch: int, batch: int) -> Generator[dict[str, NDArray[Any]]]:
        """Iterate without end from a batch of an epoch, wherever the loader stands; what a mix is built on.

        Yields
        ------
        dict
            Field → array of one batch: views, as `__iter__` gives them. No transform is applied.

        """
        runtime = self._usable()
        for slab in self._stream(runtime, epoch, batch, endless=True):
            for _, start, stop in slab.batches():
                runtime.stats.add_batch(stop - start)
                yield {name: array[start:stop] for name, array in slab.arrays.items()}
            del slab

    def _deliver(self, endless: bool, cut: Cut | None = None) -> Iterator[Batch]:
        cut = self._form.cut if cut is None else cut
        return self._deliver_read(endless, cut) if self.transform is None else self._deliver_transformed(endless, cut)

    def _deliver_read(self, endless: bool, cut: Cut) -> Iterator[Batch]:
        stats = self._usable().stats
        for turn, slab in self._slabs(endless):
            batches = cut(slab.rows(), slab.batch_rows)
            for number, start, stop in slab.batches():
                batch = next(batches)
                self._note(turn, slab.epoch, number + 1)
                stats.add_batch(stop - start)
                yield batch
                del batch
            del batches, slab

    def _deliver_transformed(self, endless: bool, cut: Cut) -> Iterator[Batch]:
        runtime, transforms = self._usable(), self.transform
        assert transforms is not None
        n_workers = self._setup.transform_workers
        if isinstance(n_workers, int) and self._made_in != os.getpid():
            n_workers = 0  # a forked child has no processes of its own
        if not self._stages:  # only what is our own
            n_workers = "threads"
        elif self._before and isinstance(n_workers, int):  # ragged rows become arrays before they leave the slab
            cut = partial(_assembled, cut, self._before[0].function)
            transforms = replace(transforms, stages=self._stages)
        with self._lock:
            runtime.transforming.prepare(transforms, n_workers)
        epoch, batch, turn = self._begin_reading()
        stats = runtime.stats
        stats.begin_pass()
        with closing(SlabStream(runtime, epoch, batch, endless, timed=True)) as stream:
            with closing(runtime.transforming.run(NumberedBatches(stream, cut), transforms, n_workers)) as batches:
                for made in batches:
                    self._note(turn, made.epoch, made.number + 1)
                    stats.add_batch(made.n_rows)
                    stats.transform_s += made.took_s
                    yield made.batch
                    del made
        self._finish(turn, epoch)


def _assembled(
    cut: Cut, assemble: Callable[[Batch], Batch], arrays: Mapping[str, NDArray[Any]], batch_rows: int
) -> Iterator[Batch]:
    return map(assemble, cut(arrays, batch_rows))


def _close(runtime: Runtime, handle: StoreHandle) -> None:
    runtime.close()
    handle.release()

"""Several loaders as one: their rows, or their batches, at fixed proportions."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.target import Places
from oocload.errors import InvalidArgumentError, StateError
from oocload.layout import FieldLayout
from oocload.loader.batch import Batch, BatchForm, Cut
from oocload.loader.budget import Budget
from oocload.loader.loader import Loader
from oocload.loader.slabs import BatchCopies, KeptBatches, Prepare, slab_nbytes
from oocload.loader.source import BatchSource
from oocload.loader.stats import Stats
from oocload.loader.transform import Stages, Transforms, stages_of
from oocload.plan.mix import ByBatches, Until, WithinBatches, check_until, shares_of
from oocload.plan.shuffle import MIXES, permutation
from oocload.units import whole_number

MixBy = Literal["rows", "batches"]
_KEPT_BATCHES = 6  # mixed batches whose memory is used again
_TF_AHEAD = 2  # of them queued in TensorFlow, which queues 40 and more where nobody says

Arrays = dict[str, NDArray[Any]]


def mix(
    loaders: Sequence[Loader],
    weights: Sequence[float] | None = None,
    *,
    by: MixBy = "rows",
    until: Until = "first",
    batch_size: int | None = None,
    seed: int = 0,
    transform: Callable[..., Any] | None = None,
) -> Mix:
    """Interleave loaders at fixed proportions.

    Parameters
    ----------
    loaders
        At least one; their batches must have the same fields, of the same row shapes and dtypes. Do not iterate them
        elsewhere meanwhile: each keeps its own ceiling, beside which a mix by rows holds the batches that it makes.
    weights
        Above 0, one per loader; None for equal ones.
    by
        ``"rows"``: every batch has rows of the loaders in these proportions, in random order; ``"batches"``: every
        batch is one of one loader, and they take turns.
    until
        ``"first"``: an epoch ends before a loader would begin anew; ``"last"``: when every loader has given all its
        rows, so that others give theirs again, in the order of their next epochs.
    batch_size
        By rows: rows per batch; None takes that of the first loader.
    seed
        By rows: of the order within batches.
    transform
        Called with each batch, in the consumer's thread; what it returns is delivered. Arrays in it must have the
        batch's rows on axis 0. Random numbers come as those of a `Loader`, from the seed given here.

    Returns
    -------
    Mix
        Batches as a `Loader` gives them: iterate, index, resume, hand to Keras or TensorFlow. At any point proportions
        are exact to less than a row (a batch), but for the largest, which takes what rounding leaves.

    Raises
    ------
    InvalidArgumentError
        If loaders do not fit each other, or an argument breaks its rule.

    Examples
    --------
    >>> import numpy as np, oocload
    >>> _ = oocload.convert({"x": np.zeros(60)}, "zeros.h5")
    >>> _ = oocload.convert({"x": np.ones(60)}, "ones.h5")
    >>> loaders = [oocload.Loader(p, batch_size=10, x="x", seed=0) for p in ("zeros.h5", "ones.h5")]
    >>> with oocload.mix(loaders, weights=[0.7, 0.3]) as mixed:
    ...     [int(x.sum()) for x in mixed]
    [3, 3, 3, 3, 3, 3, 3, 3]

    """
    return Mix(loaders, weights, by, until, batch_size, seed, stages_of(() if transform is None else (transform,)))


class Mix(BatchSource):
    """Batches of several loaders; made by `mix`."""

    def __init__(
        self,
        loaders: Sequence[Loader],
        weights: Sequence[float] | None,
        by: MixBy,
        until: Until,
        batch_size: int | None,
        seed: int,
        stages: Stages,
    ) -> None:
        self._given = (weights, by, until, batch_size, seed)
        self._stages = stages
        self._ahead: tuple[tuple[int, int], Generator[Arrays]] | None = None
        self._loaders = _checked(loaders)
        if by not in get_args(MixBy):
            raise InvalidArgumentError(f"by must be 'rows' or 'batches', got {by!r}")
        check_until(until)
        if batch_size is not None and by == "batches":
            raise InvalidArgumentError("batch_size must not be given where by='batches': batches are the loaders' own")
        first = self._loaders[0]
        self._batch_size = first.batch_size if batch_size is None else whole_number("batch_size", batch_size, 1)
        self._seed = whole_number("seed", seed, 0, 2**64 - 1)
        shares = shares_of(weights, len(self._loaders))
        self._schedule: WithinBatches | ByBatches
        if by == "rows":
            self._schedule = WithinBatches(shares, self._batch_size, [_delivered(x) for x in self._loaders], until)
        else:
            self._batch_size = max(loader.batch_size for loader in self._loaders)
            self._schedule = ByBatches(shares, [len(x) for x in self._loaders], until)
        told = (by, until, [str(s) for s in shares], self._batch_size, self._seed)
        self._fingerprint = hashlib.sha256(repr(told).encode()).hexdigest()[:16]
        self._own_nbytes = _KEPT_BATCHES * slab_nbytes(first.fields, self._batch_size, 0) * (by == "rows")
        super().__init__()

    def renew_locks(self) -> None:
        """Make the locks, and what they guard, or replace them in a forked child."""
        super().renew_locks()
        condition, kept = threading.Condition(threading.RLock()), KeptBatches()
        self._budget = Budget(self._own_nbytes, condition)
        self._copies = BatchCopies(self.fields, self._batch_size, _KEPT_BATCHES, self._budget, condition, kept)

    # Batches

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self._schedule.n_batches

    def __getitem__(self, index: int) -> Batch:
        """Return batch ``index`` of the current epoch, the same as iteration would.

        Each call decodes windows of the loaders that the batch has rows of, unless it follows the call before.

        Raises
        ------
        IndexError
            If there is no such batch.

        """
        with self._lock:
            return self.batch_at(self.epoch, self.number(index))

    def batch_at(self, epoch: int, number: int, wider: int = 0) -> Batch:
        """Return a batch of an epoch, wherever this stands."""
        with self._lock:
            following = (epoch, number)
            if self._ahead is None or self._ahead[0] != following:
                self._forget()
                self._ahead = following, self._arrays(*following)
            stream = self._ahead[1]
            arrays = {name: array.copy() for name, array in next(stream).items()}
            self._ahead = (epoch, number + 1), stream
            if number + 1 == len(self):
                self._forget()
        return self._built(arrays, epoch, number)

    def to_tf(self, *, pad_last: bool = False) -> Any:
        """Return a ``tf.data.Dataset`` of one epoch's batches, as that of a loader, with two of them prefetched."""
        return super().to_tf(pad_last=pad_last).prefetch(_TF_AHEAD)

    def _forget(self) -> None:
        """Let go of what the last index left open."""
        if self._ahead is not None:
            self._ahead[1].close()
        self._ahead = None

    def slabs(self) -> Generator[Arrays]:
        """Iterate over one epoch, a batch at a time, as field → array; what adapters are built on."""
        return self._positioned(endless=False, build=lambda arrays, _, __: arrays)

    def _deliver(self, endless: bool, cut: Cut | None = None) -> Iterator[Batch]:
        def built(arrays: Arrays, epoch: int, number: int) -> Batch:
            return self._built(arrays, epoch, number) if cut is None else next(cut(arrays, self._batch_size))

        for batch in self._positioned(endless, built):
            yield batch
            del batch

    def _positioned(self, endless: bool, build: Callable[[Arrays, int, int], Any]) -> Generator[Any]:
        """Yield batches from where this stands, noting each."""
        epoch, batch, turn = self._begin()
        with self._lock:
            self._forget()
        while True:
            with closing(self._arrays(epoch, batch)) as stream:
                for arrays in stream:
                    built = build(arrays, epoch, batch)
                    batch += 1
                    self._note(turn, epoch, batch)
                    del arrays
                    yield built
                    del built
            if not endless:
                break
            epoch, batch = epoch + 1, 0
        self._finish(turn, epoch)

    def _built(self, arrays: Arrays, epoch: int, number: int) -> Batch:
        batch = self.form.build(arrays.__getitem__)
        if (transform := self.transform) is None:
            return batch
        return transform.apply(batch, len(next(iter(arrays.values()))), epoch, number)

    def _arrays(self, epoch: int, batch: int) -> Generator[Arrays]:
        """Yield the batches of an epoch from one on."""
        if isinstance(self._schedule, WithinBatches):
            return self._mixed(self._schedule, epoch, batch)
        return self._in_turn(self._schedule, epoch, batch)

    def _mixed(self, schedule: WithinBatches, epoch: int, batch: int) -> Generator[Arrays]:
        units = [_delivered(loader) for loader in self._loaders]
        starts = _starts(schedule.taken(schedule.n_batches), units, epoch)
        taken = schedule.taken(batch)
        with ExitStack() as stack:
            cursors = [
                stack.enter_context(closing(_Cursor(loader, start, rows)))
                for loader, start, rows in zip(self._loaders, starts, taken, strict=True)
            ]
            for number in range(batch, schedule.n_batches):
                order = permutation(self._batch_size, self._seed, epoch, MIXES, number)
                arrays = self._copies.room(self._batch_size)
                at = 0
                for cursor, n_rows in zip(cursors, schedule.parts(number), strict=True):
                    cursor.put(arrays, order[at : at + n_rows])
                    at += n_rows
                yield arrays
                del arrays

    def _in_turn(self, schedule: ByBatches, epoch: int, batch: int) -> Generator[Arrays]:
        starts = _starts(schedule.taken(schedule.n_batches), [len(loader) for loader in self._loaders], epoch)
        taken = schedule.taken(batch)
        with ExitStack() as stack:
            streams: dict[int, Generator[Arrays]] = {}
            for turn in schedule.turns[batch:].tolist():
                if turn not in streams:
                    loader = self._loaders[turn]
                    n_epochs, first = divmod(taken[turn], len(loader))
                    stream = loader.batches_from(starts[turn] + n_epochs, first)
                    streams[turn] = stack.enter_context(closing(stream))
                yield next(streams[turn])

    # State

    def load_state_dict(self, state: Any) -> None:
        """Go to where a state stands: the next ``for`` yields exactly what was still to come.

        Raises
        ------
        StateError
            If the state belongs to another mix, or one of its loaders to another store; says what differs.
        MemoryCeilingError
            If a loader's ceiling is too small for the state's window.

        """
        keys = {"mix", "epoch", "batch", "loaders"}
        if not isinstance(state, Mapping) or not keys <= state.keys():
            raise StateError(f"state must be what state_dict() of a mix returned, got {type(state).__name__}")
        states = state["loaders"] if isinstance(state["loaders"], Sequence) else ()
        if len(states) != len(self._loaders) or state["mix"] != self._fingerprint:
            raise StateError(
                f"state must belong to a mix of these {len(self._loaders)} loaders with these weights and options, but "
                f"mix is {state['mix']!r} of {len(states)} there and {self._fingerprint!r} here"
            )
        epoch, batch = state["epoch"], state["batch"]
        if not all(isinstance(v, int) and v >= 0 for v in (epoch, batch)) or batch > len(self):
            raise StateError(f"state must name a batch from 0 to {len(self)}, got epoch {epoch!r}, batch {batch!r}")
        with self._lock:
            self._forget()
            before = [loader.state_dict(epoch=0, batch=0) for loader in self._loaders]
            for number, (loader, of_loader) in enumerate(zip(self._loaders, states, strict=True)):
                try:
                    loader.load_state_dict(of_loader)
                except InvalidArgumentError as exc:
                    for changed, old in zip(self._loaders[:number], before[:number], strict=True):
                        changed.load_state_dict(old)
                    raise type(exc)(f"loader {number} of the mix: {exc}") from exc
            self.pass_lengths.clear()
            self.go_to(epoch, batch)

    def _state_at(self, epoch: int, batch: int) -> dict[str, Any]:
        loaders = [loader.state_dict(epoch=0, batch=0) for loader in self._loaders]
        return {"mix": self._fingerprint, "epoch": epoch, "batch": batch, "loaders": loaders}

    def prepare_slabs(self, prepare: Prepare) -> None:
        """Have a function called with address and bytes of each slab's memory; it returns what undoes it."""
        for loader in self._loaders:
            loader.prepare_slabs(prepare)
        self._copies.prepare(prepare)

    # Facts

    @property
    def memory(self) -> int:
        """The ceilings of all loaders together, in bytes, and the batches that a mix by rows holds beside."""
        return self._own_nbytes + sum(loader.memory for loader in self._loaders)

    def min_memory(self) -> int:
        """Return what `memory` would be with the smallest ceilings that work."""
        return self._own_nbytes + sum(loader.min_memory() for loader in self._loaders)

    @property
    def budget(self) -> Budget:
        """Bytes held by the batches that a mix by rows puts together; those of the loaders are in `stats`."""
        return self._budget

    @property
    def loaders(self) -> tuple[Loader, ...]:
        """The loaders that are mixed; each has stats of its own."""
        return tuple(self._loaders)

    @property
    def batch_size(self) -> int:
        """Rows per batch; by batches, of the largest."""
        return self._batch_size

    @property
    def world_size(self) -> int:
        """Ranks of the job, of which these loaders read one's rows."""
        return self._loaders[0].world_size

    @property
    def spare_slabs(self) -> int:
        """Slabs that may be held for as long as one likes: of each loader, or of the batches put together."""
        if isinstance(self._schedule, WithinBatches):
            return 1
        return min(loader.spare_slabs for loader in self._loaders)

    @property
    def uniform(self) -> bool:
        """Whether all batches but the last have `batch_size` rows: not where short ones lie between others."""
        return self.even

    @property
    def even(self) -> bool:
        """Whether all batches have `batch_size` rows."""
        if isinstance(self._schedule, WithinBatches):
            return True
        return all(x.even and x.batch_size == self._batch_size for x in self._loaders)

    @property
    def epoch_rows(self) -> int:
        """Rows of an epoch."""
        taken = self._schedule.taken(len(self))
        if isinstance(self._schedule, WithinBatches):
            return sum(taken)
        return sum(_rows_of_batches(loader, n) for loader, n in zip(self._loaders, taken, strict=True))

    def rows_of(self, number: int) -> int:
        """Return the rows of a batch of any epoch; by batches, of a mean one."""
        return self._batch_size if isinstance(self._schedule, WithinBatches) else self.epoch_rows // len(self)

    @property
    def stats(self) -> tuple[Stats, ...]:
        """The stats of each loader; print them."""
        return tuple(loader.stats for loader in self._loaders)

    @property
    def fields(self) -> Mapping[str, FieldLayout]:
        """Field → layout, of the first loader."""
        return self._loaders[0].fields

    @property
    def form(self) -> BatchForm:
        """Which fields a batch has, and how they are arranged."""
        return self._loaders[0].form

    @property
    def transform(self) -> Transforms | None:
        """The chain of functions that each batch passes through; None where there are none."""
        rank = self._loaders[0].rank
        return Transforms(self._stages, self._seed, rank) if self._stages else None

    def map(self, fn: Callable[..., Any]) -> Mix:
        """Return a mix of the same loaders, passed through one function more; see `BatchSource.map`."""
        with self._lock:
            self._follow()
            child = Mix(self._loaders, *self._given, (*self._stages, *stages_of((fn,), len(self._stages))))
            child._epoch, child._batch, child._begun = self._epoch, self._batch, self._begun
            return child

    def __repr__(self) -> str:
        taken = self._schedule.taken(len(self))
        what = "rows" if isinstance(self._schedule, WithinBatches) else "batches"
        lines = [f"Mix of {len(self._loaders)} loaders: {len(self):,} batches of {self._batch_size} rows"]
        for given, loader in zip(taken, self._loaders, strict=True):
            lines.append(f"  {given:,} {what} ({given / sum(taken):.1%}) of {repr(loader).splitlines()[0]}")
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, Any]:
        self._follow()
        position = (self._epoch, self._batch, self._begun)
        return {"loaders": self._loaders, "given": self._given, "stages": self._stages, "position": position}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["loaders"], *state["given"], state["stages"])  # type: ignore[misc]
        self._epoch, self._batch, self._begun = state["position"]

    def rest(self) -> None:
        """Let go of memory that is made again when it is needed."""
        for loader in self._loaders:
            loader.rest()

    def close(self) -> None:
        """Close all loaders; a second call does nothing."""
        with self._lock:
            self._forget()
        for loader in self._loaders:
            loader.close()
        self._copies.close()


class _Cursor:
    """Rows of a loader one after the other, over batches and epochs."""

    def __init__(self, loader: Loader, epoch: int, n_taken: int) -> None:
        n_epochs, row = divmod(n_taken, _delivered(loader))
        batch, self._at = divmod(row, loader.batch_size)
        self._batches = loader.batches_from(epoch + n_epochs, batch)
        self._arrays: Arrays = {}
        self._n_left = -self._at

    def put(self, arrays: Arrays, places: NDArray[np.int64]) -> None:
        """Copy as many rows as there are places."""
        done = 0
        while done < len(places):
            if self._n_left <= 0:
                self._arrays = {}
                self._arrays = next(self._batches)
                self._n_left += len(next(iter(self._arrays.values())))
            n_rows = min(self._n_left, len(places) - done)
            index = places[done : done + n_rows]
            for name, array in self._arrays.items():
                Places(arrays[name], index).put(0, array[self._at : self._at + n_rows])
            done, self._n_left, self._at = done + n_rows, self._n_left - n_rows, self._at + n_rows
            if not self._n_left:
                self._at = 0

    def close(self) -> None:
        """Stop the loader's threads."""
        self._arrays = {}
        self._batches.close()


def _delivered(loader: Loader) -> int:
    """Return the rows that a loader delivers in an epoch."""
    return min(loader.epoch_rows, len(loader) * loader.batch_size)


def _rows_of_batches(loader: Loader, n_batches: int) -> int:
    """Return the rows of a loader's first batches, over epochs."""
    n_epochs, rest = divmod(n_batches, len(loader))
    return n_epochs * _delivered(loader) + rest * loader.batch_size


def _starts(taken: Sequence[int], units: Sequence[int], epoch: int) -> list[int]:
    """Return each loader's epoch with which an epoch of the mix begins: one that no earlier one had a part of."""
    return [epoch * -(-n // unit) for n, unit in zip(taken, units, strict=True)]


def _checked(loaders: Sequence[Loader]) -> list[Loader]:
    """Return the loaders, which must fit each other."""
    found = list(loaders) if isinstance(loaders, Sequence) else []
    if not found or not all(isinstance(loader, Loader) for loader in found):
        raise InvalidArgumentError(f"loaders must be a list of at least one Loader, got {loaders!r}")
    if len({id(loader) for loader in found}) < len(found):
        raise InvalidArgumentError("loaders must differ, and one comes more than once; make a Loader for each")
    first = found[0]
    for number, loader in enumerate(found):
        if loader.assembled:
            names = ", ".join(map(repr, loader.assembled))
            raise InvalidArgumentError(
                f"loader {number} must give rows of one length, and those of {names} are not; make it with "
                "ragged=oocload.Pad(maxlen=...), and without sparse=True"
            )
        if loader.transform is not None:
            raise InvalidArgumentError(f"loader {number} must have no transform; give it to mix(transform=)")
        if not len(loader):
            raise InvalidArgumentError(f"loader {number} must have at least one batch, and has none")
        if loader.form != first.form:
            raise InvalidArgumentError(
                f"loaders must give the same fields, and 0 gives {first.form.parts} but {number} {loader.form.parts}"
            )
        for name, field in loader.fields.items():
            other = first.fields[name]
            if (field.row_shape, field.dtype) != (other.row_shape, other.dtype):
                raise InvalidArgumentError(
                    f"field {name!r} must be the same in all loaders, and is {other.dtype} of {other.row_shape} in "
                    f"loader 0 but {field.dtype} of {field.row_shape} in {number}"
                )
    return found

"""What delivers batches epoch after epoch, and knows where it stands: a loader, or a mix of several."""

from __future__ import annotations

import operator
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError
from oocload.forks import renew_in_child
from oocload.layout import FieldLayout
from oocload.loader.batch import Batch, BatchForm, Cut
from oocload.loader.board import Board
from oocload.loader.padding import Rule
from oocload.loader.slabs import Prepare
from oocload.loader.transform import Transforms
from oocload.units import whole_number

if TYPE_CHECKING:
    from oocload.adapters.floats import FloatsArgument
    from oocload.adapters.handed import Handed
    from oocload.adapters.jax import JaxBatches
    from oocload.adapters.keras import KerasDataset
    from oocload.adapters.torch import TorchDataset


class Stand(NamedTuple):
    """A position, and a number that changes whenever an iteration begins or the position is set."""

    epoch: int
    batch: int
    turn: int


class BatchSource(ABC):
    """Epochs of batches from a position that goes on, is saved and is restored.

    The position is that of the batch after the last one delivered. It does not tell an epoch that has begun from one
    that has not: a ``for`` that is left early goes on with the next epoch, one after a loaded state with the rest.
    """

    def __init__(self) -> None:
        self._epoch, self._batch, self._begun = 0, 0, False
        self._turn = 0  # of the iteration that may move the position: the one begun last
        self.pass_lengths: dict[tuple[int, int], int] = {}  # where a framework's pass begins → batches, if not all
        self.handed: Handed | None = None
        self.board: Board | None = None  # where worker processes of a framework write how far they are
        self._followed = 0  # the pass of theirs that this followed last
        self.renew_locks()

    def renew_locks(self) -> None:
        """Make the lock, or replace it in a forked child."""
        self._lock = threading.RLock()
        renew_in_child(self)

    # Batches

    @abstractmethod
    def __len__(self) -> int:
        """Return the batches of an epoch."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over one epoch: the rest of a loaded one, or the next."""
        return self._deliver(endless=False)

    def cut_by(self, cut: Cut) -> Iterator[Batch]:
        """Iterate as `__iter__` does, over batches that an adapter cuts; for what has no transform."""
        return self._deliver(endless=False, cut=cut)

    def forever(self) -> Iterator[Batch]:
        """Iterate over epoch after epoch without end; ``len(loader)`` steps are one epoch."""
        return self._deliver(endless=True)

    @abstractmethod
    def __getitem__(self, index: int) -> Batch:
        """Return batch ``index`` of the current epoch, the same as iteration would."""

    @abstractmethod
    def batch_at(self, epoch: int, number: int, wider: int = 0) -> Batch:
        """Return a batch of an epoch, wherever this stands; rows padded to the longest by so many items more."""

    def number(self, index: Any) -> int:
        """Return the number of a batch, given an index as Python's lists take it."""
        try:
            number = operator.index(index)
        except TypeError:
            message = f"index must be a whole number, got {index!r}; slices are not supported"
            raise InvalidArgumentError(message) from None
        n_batches = len(self)
        if not -n_batches <= number < n_batches:
            raise IndexError(f"index must be from {-n_batches} to {n_batches - 1}, got {number}")
        return number % n_batches

    @abstractmethod
    def slabs(self) -> Generator[dict[str, NDArray[Any]]]:
        """Iterate over one epoch as `__iter__` does, many batches at a time; what adapters are built on."""

    @abstractmethod
    def prepare_slabs(self, prepare: Prepare) -> None:
        """Have a function called with address and bytes of each slab's memory; it returns what undoes it."""

    @abstractmethod
    def _deliver(self, endless: bool, cut: Cut | None = None) -> Iterator[Batch]:
        """Yield batches from where this stands, noting each."""

    @property
    def epoch(self) -> int:
        """The epoch that is under way, or that the next ``for`` begins where none is."""
        self._follow()
        return self._epoch

    # Facts that adapters ask for

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Rows per batch."""

    def rows_of(self, number: int) -> int:
        """Return the rows of a batch of any epoch."""
        return min(self.batch_size, self.epoch_rows - number * self.batch_size)

    @property
    @abstractmethod
    def epoch_rows(self) -> int:
        """Rows of an epoch."""

    @property
    @abstractmethod
    def world_size(self) -> int:
        """Ranks that each have rows of their own."""

    @property
    def tight(self) -> bool:
        """Whether there is no room to read ahead: one slab, which nobody may hold."""
        return not self.spare_slabs

    @property
    @abstractmethod
    def spare_slabs(self) -> int:
        """Slabs that may be held for as long as one likes while reading goes on with the others."""

    @property
    def uniform(self) -> bool:
        """Whether all batches but the last have `batch_size` rows."""
        return True

    @property
    @abstractmethod
    def even(self) -> bool:
        """Whether all batches have `batch_size` rows."""

    @property
    @abstractmethod
    def fields(self) -> Mapping[str, FieldLayout]:
        """Field → layout, of the fields of a batch."""

    @property
    @abstractmethod
    def form(self) -> BatchForm:
        """Which fields a batch has, and how they are arranged."""

    @property
    def assembled(self) -> Mapping[str, Rule | Literal["sparse"]]:
        """Ragged and sparse fields whose arrays are made when a batch is cut, and how."""
        return {}

    @property
    @abstractmethod
    def transform(self) -> Transforms | None:
        """The chain of functions that each batch passes through; None where there are none."""

    @abstractmethod
    def map(self, fn: Callable[..., Any]) -> Self:
        """Return the same batches passed through one function more, after those there are.

        The result stands where this does, has the same options, and goes its own way from here; this stays as it is.

        Parameters
        ----------
        fn
            As ``transform`` of `Loader`.

        Raises
        ------
        InvalidArgumentError
            If it cannot be called with a batch, or a batch and ``rng``.

        """

    # State

    def state_dict(self, *, epoch: int | None = None, batch: int | None = None) -> dict[str, Any]:
        """Return where this stands: a few integers, and a fingerprint of store and options.

        The position is that of the batch after the last one delivered. A framework that takes batches ahead of the
        model (Keras, `tf.data`) knows better which one that is: with ``epoch`` and ``batch``, the state says that so
        many batches of that epoch are done, whatever was delivered.

        Raises
        ------
        InvalidArgumentError
            If only one of the two is given, or there is no such batch.

        """
        if (epoch is None) != (batch is None):
            raise InvalidArgumentError(f"epoch and batch must be given together, got {epoch!r} and {batch!r}")
        with self._lock:
            self._follow()
            if epoch is None or batch is None:
                return self._state_at(*self._normalised(self._epoch, self._batch))
            epoch, batch = whole_number("epoch", epoch, 0), whole_number("batch", batch, 0)
            if batch > len(self):
                raise InvalidArgumentError(f"batch must be from 0 to {len(self)}, got {batch}")
            return self._state_at(*self._normalised(epoch, batch))

    @abstractmethod
    def load_state_dict(self, state: Any) -> None:
        """Go to where a state stands: the next ``for`` yields exactly what was still to come."""

    @abstractmethod
    def _state_at(self, epoch: int, batch: int) -> dict[str, Any]:
        """Return the state of a position."""

    def stand(self) -> Stand:
        """Return where the next ``for`` begins."""
        with self._lock:
            self._follow()
            epoch, batch = (self._epoch + 1, 0) if self._begun else (self._epoch, self._batch)
            return Stand(epoch, batch, self._turn)

    def go_to(self, epoch: int, batch: int) -> None:
        """Stand at a position, with no epoch under way."""
        with self._lock:
            self._epoch, self._batch = self._normalised(epoch, batch)
            self._begun = False
            self._turn += 1
            self._report()

    def stand_at(self, epoch: int, batch: int, begun: bool) -> None:
        """Correct the position of the iteration under way; ``begun`` says whether it has delivered anything."""
        with self._lock:
            self._epoch, self._batch, self._begun = epoch, batch, begun
            self._report()

    def _normalised(self, epoch: int, batch: int) -> tuple[int, int]:
        """Return a position; the end of an epoch is the start of the next."""
        return (epoch, batch) if batch < len(self) else (epoch + 1, 0)

    def _begin(self) -> tuple[int, int, int]:
        """Return where an iteration starts, and its turn: where a state was loaded, or at the next epoch."""
        with self._lock:
            self._follow()
            if self._begun:
                self._epoch, self._batch = self._epoch + 1, 0
            self._begun = True
            self._turn += 1
            if self.board is not None:
                self.board.tidy()
            self._report()
            return self._epoch, self._batch, self._turn

    def attach(self, board: Board) -> None:
        """Share where this stands with worker processes, if it is not shared yet."""
        if self.board is None:
            self.board = board
            self._report()

    def _follow(self) -> None:
        """Stand where the consumer of worker processes' batches does, if they set out after this moved last."""
        if self.board is None or self.board.owner != os.getpid():
            return
        found = self.board.given()
        if found is None:
            return
        if found.of_pass != self._followed:
            self._followed = found.of_pass
            self._turn += 1
        self._epoch, self._batch, self._begun = found.epoch, found.batch, found.begun

    def _report(self) -> None:
        """Let worker processes know where this stands."""
        if self.board is not None and self.board.owner == os.getpid():
            self.board.own(self._epoch, self._batch, self._begun)

    def _note(self, turn: int, epoch: int, batch: int) -> None:
        """Remember the position after a delivered batch, unless another iteration has begun meanwhile."""
        if turn == self._turn:
            moved, self._epoch, self._batch = epoch != self._epoch, epoch, batch
            if moved:
                self._report()

    def _finish(self, turn: int, epoch: int) -> None:
        """Note that an epoch was delivered to its end."""
        with self._lock:
            if turn == self._turn:
                self.go_to(epoch + 1, 0)

    # Frameworks

    def to_keras(
        self, *, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> KerasDataset:
        """Return a ``keras.utils.PyDataset``, for ``fit``, ``evaluate`` and ``predict`` on any backend of Keras'.

        Batches come in this loader's order whatever ``fit(shuffle=)`` says, each row once a pass.

        Parameters
        ----------
        workers, use_multiprocessing, max_queue_size
            Taken as Keras' own datasets take them, so that old code runs, but Keras starts no workers: reading,
            decoding and shuffling run in this loader's threads.

        Raises
        ------
        MissingPackageError
            If Keras or its backend is not installed.

        """
        from oocload.adapters.keras import to_keras

        return to_keras(self, workers, use_multiprocessing, max_queue_size)

    def to_tf(self, *, pad_last: bool = False) -> Any:
        """Return a ``tf.data.Dataset`` of one epoch's batches; iterating it again is the next epoch.

        Whole slabs are handed to TensorFlow without copying. Element spec and cardinality are exact. `state_dict`
        counts whole slabs, when TensorFlow has taken all batches of one: give it the batch that the model is at.

        Where there are ranks, each worker's dataset has its own rank's rows. Under a ``tf.distribute`` strategy of
        several workers, hand it over by ``strategy.distribute_datasets_from_function``, which leaves batches as they
        are; ``experimental_distribute_dataset`` divides each by the number of replicas.

        Parameters
        ----------
        pad_last
            Give all batches `batch_size` rows: the last is filled up with its last row again, and a third part of
            each batch has weight 0 for these (float32; or the loader's own ``sample_weight``).

        Raises
        ------
        MissingPackageError
            If TensorFlow is not installed.
        InvalidArgumentError
            If a field has a dtype that TensorFlow lacks, or batches have no targets beside which weights could stand.

        """
        from oocload.adapters.tf_data import to_tf

        return to_tf(self, pad_last)

    def to_torch(self, *, device: Any = None, floats: FloatsArgument = None, ahead: int = 2) -> TorchDataset:
        """Return a ``torch.utils.data.IterableDataset`` of whole batches; each pass is one epoch.

        Iterate it directly, or give it to ``torch.utils.data.DataLoader(dataset, batch_size=None)``, with any number of
        workers: the batches and their order are those of this loader. Tensors lie over the slab's own memory; use them
        and let go, or ``clone()`` what you keep.

        Workers read together: each decodes its share of the blocks into slabs that all of them see, and runs the
        transform on its share of the batches. They share one ceiling.

        Parameters
        ----------
        device
            What ``torch.device`` takes; None for host memory. On a CUDA device slabs are pinned, and copied on a
            stream of their own; batches are on the device when the current stream comes to them.
        floats
            Which fields become floats, where the tensors are: True for the inputs of dtype uint8 (``values / 255``),
            a `Floats` for all inputs, or a dict field → `Floats`.
        ahead
            Batches that are copied to the device ahead of the one given, from 0.

        Raises
        ------
        MissingPackageError
            If PyTorch is not installed.
        InvalidArgumentError, UnknownFieldError
            If there is no such device, a field has a dtype without tensors, or ``floats`` does not fit the fields.

        """
        from oocload.adapters.torch import to_torch

        return to_torch(self, device, floats, ahead)

    def to_jax(
        self, *, device: Any = None, sharding: Any = None, floats: FloatsArgument = None, ahead: int = 2
    ) -> JaxBatches:
        """Return an iterable of this loader's batches as JAX arrays; each ``for`` over it is one epoch.

        Batches have the same arrangement and, in JAX's dtypes, the same bytes as those of a ``for`` over the loader.
        `state_dict` counts a batch when it is given, not when it is put on the device ahead. An error that is met
        ahead is raised after the batches before it.

        Arrays may be kept. On JAX's CPU backend they look at slabs that the loader can spare, which are used again when
        nobody does, and are copies beyond those, in memory of JAX's own, as on other devices. What a transform returns
        is copied. Iterators are not thread-safe; read `state_dict` in the thread that iterates.

        Parameters
        ----------
        device
            A ``jax.Device``; None takes JAX's default device.
        sharding
            A ``jax.sharding.Sharding`` for all arrays of a batch, which divides their rows among devices. Where it
            spans processes, each gives its own rank's rows: a global batch has ``world_size × batch_size``.
        floats
            Which fields become floats on the device, after their own bytes have crossed to it: True for those of
            uint8 among the inputs, an `oocload.Floats` for all of numbers there, or a dict of field → `Floats`.
        ahead
            How many batches are put on the device before they are asked for, at least 0; each takes the memory of a
            batch there.

        Returns
        -------
        JaxBatches
            With the loader's length, for one epoch after the other.

        Raises
        ------
        MissingPackageError
            If JAX is not installed.
        InvalidArgumentError
            If an argument breaks its rule, both ``device`` and ``sharding`` are given, the sharding does not divide
            the rows of all batches, or a field has a dtype that JAX lacks; while iterating, if whole numbers of 64
            bits do not fit 32, to which JAX would cut them.
        UnknownFieldError
            If ``floats`` names a field that batches do not have.

        """
        from oocload.adapters.jax import to_jax

        return to_jax(self, device, sharding, floats, ahead)

    # Life cycle

    @abstractmethod
    def rest(self) -> None:
        """Let go of memory that is made again when it is needed."""

    @abstractmethod
    def close(self) -> None:
        """Stop what runs, close files and let go of memory; a second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

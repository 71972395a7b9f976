"""A ``torch.utils.data.IterableDataset`` over a loader: whole batches as tensors over the slab's own memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from oocload.adapters.ahead import batches_ahead
from oocload.adapters.device import device_for, pin
from oocload.adapters.floats import Affine, FloatsArgument, resolve
from oocload.adapters.tensors import as_tensors, check_dtype, cut_tensors
from oocload.adapters.workers import Workers, check_whole
from oocload.errors import InvalidArgumentError
from oocload.loader.batch import Batch
from oocload.loader.options import whole_number
from oocload.optional import require

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

torch: Any = require("torch", "torch", "to_torch()")


class TorchDataset(torch.utils.data.IterableDataset):  # type: ignore[misc]
    """Whole batches of a loader as tensors; each pass is one epoch of the loader.

    Iterate it directly, or give it to ``DataLoader(dataset, batch_size=None)``.

    Parameters
    ----------
    loader
        Gives the batches; its position is that of the dataset.
    device, floats, ahead
        As `Loader.to_torch` takes them.

    """

    def __init__(self, loader: BatchSource, device: Any, floats: FloatsArgument, ahead: int) -> None:
        super().__init__()
        self.loader = loader
        self.device = _checked_device(device)
        self.ahead = whole_number("ahead", ahead, 0)
        self._floats = resolve(floats, loader)
        self._on: dict[str, tuple[Any, Any]] = {}
        self._pinned = False
        self._workers = Workers(loader)
        if loader.transform is None:
            for name, field in loader.fields.items():
                check_dtype(f"field {name!r}", field.dtype, "; choose other fields with x=")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pinned": False}

    def workers_set_out(self, n_ahead: int) -> None:
        """Make room for the workers of a `DataLoader` that are about to start; called by `delivered`."""
        self._workers.set_out(n_ahead)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over one epoch: the rest of a loaded one, or the next.

        Raises
        ------
        InvalidArgumentError
            If a `DataLoader` would make batches of these batches, or accelerate would divide a rank's rows.

        """
        caller = sys._getframe(1)
        _check_not_batched(caller, self.loader.batch_size)
        if self.loader.world_size > 1:
            _check_not_dispatched(caller, self.loader.world_size)
        worker = torch.utils.data.get_worker_info()
        if worker is None:
            return self._batches()
        if self.device.type != "cpu":
            raise InvalidArgumentError(
                f"device must be left out where a DataLoader has workers, got {str(self.device)!r}; use num_workers=0, "
                "which reads in threads, or move batches to the device where they arrive"
            )
        return self._workers.batches(
            worker.id, worker.num_workers, worker.seed, self._on_device if self._floats else None
        )

    def _batches(self) -> Iterator[Batch]:
        if self.device.type == "cpu":
            return self._on_host()
        if self.device.type == "cuda" and not self._pinned:
            self.loader.prepare_slabs(pin(self.device))
            self._pinned = True
        return batches_ahead(self.loader, device_for(self.device, self._on_device), self.ahead)

    def _on_host(self) -> Iterator[Batch]:
        if self.loader.transform is not None:
            return map(as_tensors, self.loader)
        batches = self.loader.cut_by(partial(cut_tensors, self.loader.form))
        return map(self._on_device, batches) if self._floats else batches

    def _on_device(self, batch: Batch) -> Batch:
        """Return a batch in which the fields that were asked for are floats."""
        if not self._floats:
            return batch
        tensors = dict(self.loader.form.items(batch))
        for name, how in self._floats.items():
            tensors[name] = _as_floats(tensors[name], self._numbers(name, how), how.dtype)
        return self.loader.form.build(tensors.__getitem__)

    def _numbers(self, name: str, how: Affine) -> tuple[Any, Any]:
        """Return what a field's values are multiplied with, and what is added, as tensors on the device."""
        if name not in self._on:
            self._on[name] = tuple(torch.from_numpy(v.reshape(v.shape or 1)).to(self.device) for v in how[:2])
        return self._on[name]

    # State

    def state_dict(self) -> dict[str, Any]:
        """Return where the dataset stands, as ``torchdata``'s ``StatefulDataLoader`` asks for it."""
        return self.loader.state_dict() if torch.utils.data.get_worker_info() is None else self._workers.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a state stands: the next pass yields exactly what was still to come."""
        worker = torch.utils.data.get_worker_info()
        if worker is not None:
            self._workers.load_state_dict(state, worker.id)
            return
        check_whole(state)
        self.loader.load_state_dict(state)


def to_torch(loader: BatchSource, device: Any, floats: FloatsArgument, ahead: int) -> TorchDataset:
    """Return a `TorchDataset` over a loader."""
    return TorchDataset(loader, device, floats, ahead)


def _as_floats(values: Any, numbers: tuple[Any, Any], dtype: str) -> Any:
    factor, offset = numbers
    return torch.addcmul(offset, values.to(factor.dtype), factor).to(getattr(torch, dtype))


def _checked_device(device: Any) -> Any:
    """Return where tensors go, which this build of PyTorch must have.

    Raises
    ------
    InvalidArgumentError
        If there is no such device.

    """
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as exc:
        raise InvalidArgumentError(f"device must be what torch.device() takes, got {device!r}") from exc
    if found.type == "cuda" and not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
        raise InvalidArgumentError(
            f"device must be one that PyTorch can use, got {str(found)!r}, but torch.cuda.is_available() is False "
            f"(PyTorch {torch.__version__} {built}); leave device out for tensors in host memory"
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InvalidArgumentError(
            f"device must be one of {torch.cuda.device_count()} CUDA devices, got {str(found)!r}; they count from 0"
        )
    if found.type == "cuda" and found.index is None:  # slabs are pinned by threads, which have a current device too
        return torch.device("cuda", torch.cuda.current_device())
    return found


def _check_not_batched(caller: FrameType, batch_size: int) -> None:
    """Refuse to be batched: a `DataLoader` that does iterates over its dataset in a fetcher that says so."""
    if caller.f_locals.get("auto_collation") is True:
        raise InvalidArgumentError(
            f"batch_size of the DataLoader must be None: this dataset yields whole batches, of {batch_size} rows, as "
            "the Loader was told, and they would be stacked into batches of batches; use "
            "DataLoader(dataset, batch_size=None)"
        )


def _check_not_dispatched(caller: FrameType | None, world_size: int) -> None:
    """Refuse to be read on one rank for all: accelerate's dispatcher would lose the rows of the others."""
    while caller is not None:
        if type(caller.f_locals.get("self")).__name__ == "DataLoaderDispatcher":
            raise InvalidArgumentError(
                f"accelerate must not be given this dataset's DataLoader to prepare: the loader is that of one of "
                f"{world_size} ranks, and accelerate would divide the first one's rows among all; leave it out of "
                "accelerator.prepare()"
            )
        caller = caller.f_back

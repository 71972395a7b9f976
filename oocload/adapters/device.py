"""Copies to a device of PyTorch's: on CUDA from pinned slabs on a stream of their own, elsewhere one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from oocload.adapters.ahead import Copy, Device, Started
from oocload.adapters.tensors import as_tensors, mapped, tensors_of
from oocload.loader.batch import Batch
from oocload.optional import require

torch: Any = require("torch", "torch", "to_torch()")

_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device's context
_log = logging.getLogger(__name__)


def device_for(device: Any, finish: Callable[[Batch], Batch]) -> Device:
    """Return how batches come to a device.

    Parameters
    ----------
    device
        A ``torch.device``.
    finish
        Called with each batch on the device; what it returns is the batch.

    """
    return CudaDevice(device, finish) if device.type == "cuda" else PlainDevice(device, finish)


class PlainDevice:
    """A device to which each copy is done when it returns."""

    def __init__(self, device: Any, finish: Callable[[Batch], Batch]) -> None:
        self._device, self._finish = device, finish

    def start(self, batch: Batch) -> Copy:
        """Copy a batch."""
        return Started(self._finish(mapped(as_tensors(batch), lambda tensor: tensor.to(self._device, copy=True))))


class CudaDevice:
    """A CUDA device with a stream for copies."""

    def __init__(self, device: Any, finish: Callable[[Batch], Batch]) -> None:
        self._device, self._finish = device, finish
        self._stream = torch.cuda.Stream(device)

    def start(self, batch: Batch) -> Copy:
        """Queue the copies of a batch, and what is done with it on the device."""
        host = as_tensors(batch)
        with torch.cuda.stream(self._stream):
            there = mapped(host, lambda tensor: tensor.to(self._device, non_blocking=True))
            copied = torch.cuda.Event()
            copied.record(self._stream)
            try:
                finished = self._finish(there)
            except BaseException:
                copied.synchronize()  # nobody else will wait before the slab is filled again
                raise
            ready = torch.cuda.Event()
            ready.record(self._stream)
        return _Queued(host, copied, finished, ready, self._device)


class _Queued:
    """Copies on a stream; the host's memory is held until they are done."""

    def __init__(self, host: Batch, copied: Any, batch: Batch, ready: Any, device: Any) -> None:
        self._host, self._copied = host, copied
        self._batch, self._ready, self._device = batch, ready, device

    def wait(self) -> None:
        """Wait for the copies, and let go of the host's memory."""
        self._copied.synchronize()
        self._host = None

    def result(self) -> Batch:
        """Return the batch, for the stream that is current: it waits, and says when it needs the memory no more."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(self._ready)
        for tensor in tensors_of(self._batch):
            tensor.record_stream(current)
        return self._batch


def pin(device: Any) -> Callable[[int, int], Callable[[], None]]:
    """Return a function that pins memory (address, bytes), of which a CUDA device then copies while the host works.

    What it returns undoes it. Memory that cannot be pinned, since a limit is reached, is left as it is: copies out of
    it take longer, and the host waits for them.
    """

    def register(address: int, nbytes: int) -> Callable[[], None]:
        with torch.cuda.device(device):
            code = int(torch.cuda.cudart().cudaHostRegister(address, nbytes, _PORTABLE))
        if code:
            with suppress(RuntimeError):  # the error stays until someone checks, and would be another's
                torch.zeros(1, device=device)
            _log.warning("%d bytes of a slab could not be pinned (CUDA error %d); copies out of it wait", nbytes, code)
            return lambda: None
        return lambda: _unregister(device, address)

    return register


def _unregister(device: Any, address: int) -> None:
    with torch.cuda.device(device):
        torch.cuda.cudart().cudaHostUnregister(address)

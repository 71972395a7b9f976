"""Batches on their way from a worker to the process that asked: in memory that both see, used again and again.

PyTorch's own way makes a file for each tensor and opens a socket to hand it over, some milliseconds a batch. Here a
worker copies a batch into a buffer of the board, and what goes through the queue is where it lies. A buffer is busy
while any of its tensors is on its way or alive; where none is free, a batch goes PyTorch's way.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.adapters.tensors import as_tensors, shared_copies
from oocload.chunks.scratch import align
from oocload.layout import FieldLayout
from oocload.loader.board import MOST_BUFFERS, Board
from oocload.optional import require

torch: Any = require("torch", "torch", "to_torch()")

_known: weakref.WeakValueDictionary[int, Board] = weakref.WeakValueDictionary()


class Sent(torch.Tensor):  # type: ignore[misc]
    """A tensor in a buffer, which pickles as where it lies. What is computed from it is an ordinary tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __reduce_ex__(self, protocol: Any) -> Any:
        if not hasattr(self, "where"):
            return self.as_subclass(torch.Tensor).__reduce_ex__(protocol)
        return _received, self.where


class Sender:
    """Sends batches of some fields from a worker.

    Parameters
    ----------
    board
        Has the buffers.
    token
        Of who asks the workers.
    fields
        Of a batch.
    batch_rows, n_batches
        Rows of a batch, and how many may be on their way or alive at once.

    """

    def __init__(
        self, board: Board, token: int, fields: Mapping[str, FieldLayout], batch_rows: int, n_batches: int
    ) -> None:
        self._board, self._token = board, token
        self._stride = sum(align(field.row_nbytes * batch_rows) for field in fields.values())
        self._n_buffers = min(n_batches, MOST_BUFFERS) if self._stride else 0

    def copies(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return copies of a batch's arrays as tensors that go to the process that asked without another copy."""
        index = self._board.take_buffer(self._token, self._n_buffers, len(arrays))
        if index is None:
            return shared_copies(arrays)
        copies, offset = {}, 0
        for name, array in arrays.items():
            dtype = array.dtype.newbyteorder("=")
            where = (self._board.identity, index, self._stride, self._n_buffers, offset, dtype, array.shape)
            room = _array(self._board, *where[1:])
            room[...] = array
            copies[name] = as_tensors(room).as_subclass(Sent)
            copies[name].where = where
            offset += align(array.nbytes)
        return copies


def know(board: Board) -> None:
    """Have what workers send by this board found in this process."""
    _known[board.identity] = board


def _received(identity: int, index: int, *where: Any) -> Any:
    """Return a tensor over a buffer, which is free again when the last of its tensors is gone."""
    board = _known[identity]
    array = _array(board, index, *where)
    board.hold_buffer(index)
    weakref.finalize(array, board.release_buffer, index).atexit = False
    return as_tensors(array)


def _array(
    board: Board, index: int, stride: int, n_buffers: int, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    memory = board.buffers(stride * n_buffers)
    start = index * stride + offset
    return np.ndarray(shape, dtype, memory, start)

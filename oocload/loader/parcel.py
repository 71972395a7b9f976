"""An object laid out in one piece of memory: its pickle, and the arrays in it beside that.

::

    |- n -|- pickle: from, bytes -|- buffer 0: from, bytes -|- ... -|- pickle -|- buffer 0 -|- ... -|

Buffers are what pickle's protocol 5 leaves out (PEP 574). Taken from there again, arrays are views of the memory. An
array that lies in that memory already, where the one that took it says so, stays where it is.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.scratch import align

Memory = NDArray[np.uint8]

_WORD = 8


class Parcel:
    """An object on its way into some memory.

    Parameters
    ----------
    what
        Anything that pickles.
    lying
        Memory in which some of its arrays may lie, which is the beginning of the one that it is written to.

    """

    def __init__(self, what: Any, lying: Memory | None = None) -> None:
        buffers: list[pickle.PickleBuffer] = []
        stream = io.BytesIO()
        _Pickler(stream, 5, buffer_callback=buffers.append).dump(what)
        self._pickle = np.frombuffer(stream.getbuffer(), np.uint8)
        self._buffers = [_bytes_of(buffer) for buffer in buffers]
        self._there = [_offset_in(lying, buffer) for buffer in self._buffers]
        n_words = 1 + 2 * (1 + len(buffers))
        self._at = align(n_words * _WORD)
        new = (b.size for b, there in zip(self._buffers, self._there, strict=True) if there is None)
        self.nbytes = self._at + align(self._pickle.size) + sum(map(align, new))

    def write(self, memory: Memory, start: int) -> None:
        """Lay it out from some place on, a multiple of the alignment."""
        at = start + self._at
        spans = [(at, self._pickle.size)]
        memory[at : at + self._pickle.size] = self._pickle
        at += align(self._pickle.size)
        for buffer, there in zip(self._buffers, self._there, strict=True):
            spans.append((at if there is None else there, buffer.size))
            if there is None:
                memory[at : at + buffer.size] = buffer
                at += align(buffer.size)
        words = np.array([len(self._buffers), *(number for span in spans for number in span)], np.int64)
        memory[start : start + words.nbytes] = words.view(np.uint8)


def opened(memory: Memory, start: int, copies: bool = False) -> Any:
    """Return the object that lies at some place; its arrays are views of the memory, or copies."""
    n_buffers = int(memory[start : start + _WORD].view(np.int64)[0])
    stop = start + _WORD * (1 + 2 * (1 + n_buffers))
    spans = memory[start + _WORD : stop].view(np.int64).reshape(-1, 2).tolist()
    pickled, *buffers = (memory[at : at + nbytes] for at, nbytes in spans)
    if copies:
        buffers = [buffer.copy() for buffer in buffers]
    return pickle.loads(pickled.tobytes(), buffers=buffers)


class _Pickler(pickle.Pickler):
    """Leaves out all arrays of numbers, also those that do not lie in one piece."""

    def reducer_override(self, what: Any) -> Any:
        """Return what an array is made of again, where NumPy would put its bytes into the pickle."""
        if type(what) is np.ndarray and not what.dtype.hasobject and not what.flags.forc:
            return np.ascontiguousarray(what).__reduce_ex__(5)
        return NotImplemented


def _bytes_of(buffer: pickle.PickleBuffer) -> Memory:
    raw = buffer.raw()
    return np.frombuffer(raw, np.uint8) if raw.nbytes else np.empty(0, np.uint8)


def _offset_in(lying: Memory | None, buffer: Memory) -> int | None:
    """Return where a buffer lies in some memory; None where it does not."""
    if lying is None or not buffer.size:
        return None
    offset = int(buffer.ctypes.data - lying.ctypes.data)
    return offset if 0 <= offset <= lying.size - buffer.size else None

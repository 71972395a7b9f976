"""What a process of a pool does: takes batches out of shared memory, applies transforms, puts the results beside them.

Messages are a few numbers; what they speak of lies in memory that the parent made, and that either makes larger::

    |- batch (a parcel) -|- result, or what was raised (a parcel) -|
    0                    start                                     nbytes
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import signal
import socket
import struct
import time
import traceback
from contextlib import suppress
from typing import Any

from oocload.errors import InvalidArgumentError, TransformError
from oocload.loader.growing import GrowingMemory
from oocload.loader.parcel import Memory, Parcel, opened
from oocload.loader.slabs import forget_free_slabs
from oocload.loader.transform import Stages, Transforms

TASK = struct.Struct("=6qQ")
"""Slot, start of the result, rows, epoch, number, rank, seed."""

REPLY = struct.Struct("=3qd")
"""Slot, whether it failed, bytes of the memory from its beginning to the result's end, seconds."""

_LOOK_MS = 1000  # how often to look whether the parent lives, should its end of the channel be open elsewhere


def serve(channel: socket.socket, stages: Stages) -> None:
    """Answer the parent until it closes the channel or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to end
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # what was forked with this process is the parent's
    forget_free_slabs()
    memories: dict[int, GrowingMemory] = {}
    parent = os.getppid()
    while (message := _received(channel, parent)) is not None:
        (slot, *task), descriptors = message
        if descriptors:
            memories[slot] = GrowingMemory(descriptors[0])
        try:
            channel.send(_answer(slot, memories[slot], stages, *task))
        except OSError:  # nobody asks any more
            return


def _received(channel: socket.socket, parent: int) -> tuple[tuple[int, ...], list[int]] | None:
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while not poll.poll(_LOOK_MS):
        if os.getppid() != parent:
            return None
    try:
        message, descriptors, _, _ = socket.recv_fds(channel, TASK.size, 1)
    except OSError:
        return None
    return (TASK.unpack(message), descriptors) if message else None


def _answer(
    slot: int, memory: GrowingMemory, stages: Stages, start: int, n_rows: int, epoch: int, number: int, *key: int
) -> bytes:
    rank, seed = key
    transforms = Transforms(stages, seed, rank)
    lying = memory.root(start)[:start]
    began = time.perf_counter()
    failed = False
    try:
        parcel = _packed(transforms.apply(opened(lying, 0), n_rows, epoch, number), lying, transforms)
    except BaseException as exc:
        failed, parcel = True, Parcel(_portable(exc))
    took_s = time.perf_counter() - began
    parcel.write(memory.root(start + parcel.nbytes), start)
    return REPLY.pack(slot, failed, start + parcel.nbytes, took_s)


def _packed(made: Any, lying: Memory, transforms: Transforms) -> Parcel:
    try:
        return Parcel(made, lying)
    except Exception as exc:
        name = transforms.stages[-1].name
        raise InvalidArgumentError(
            f"transform {name!r} must return what pickles where it runs in processes, got {type(made).__name__}: "
            f"{exc}; return arrays, or use transform_workers=None"
        ) from exc


def _portable(error: BaseException) -> BaseException:
    """Return an error as it can be sent, with its traceback's text in a note."""
    text = "".join(traceback.format_exception(error)).rstrip()
    copy: BaseException | None = None
    with suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
    if copy is None or type(copy) is not type(error):
        copy = TransformError(f"a transform raised {type(error).__qualname__}, which cannot be sent: {error}")
        for note in getattr(error, "__notes__", ()):
            copy.add_note(note)
    copy.add_note(f"in a process of transform_workers:\n{text}")
    return copy

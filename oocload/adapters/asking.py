"""Who in Keras asks for a batch, and whether it only looks at a few.

A ``PyDataset`` is told nothing but indices, which Keras permutes. Behind them may be one generator for each epoch, one
over several, one that is dropped when Keras has learned the shapes, or two in turn. They are told apart by looking for
the running generator on the stack (``PyDatasetAdapter._finite_generator``), and ``EpochIterator.reset`` says that it
was only a look. Where a later Keras has neither, requests are by index: slower, with the same rows.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from types import FrameType
from typing import Any, NamedTuple

_ADAPTERS = "data_adapters.py_dataset_adapter"
_EPOCHS = "trainers.epoch_iterator"


class Asker(NamedTuple):
    """A running generator of Keras', and the adapter whose it is: one for each run of ``fit``."""

    frame: int
    owner: weakref.ref[Any]
    wanted: int | None


class EpochCall(NamedTuple):
    """Whose epoch begins or ends, in which iterator of Keras', and whether that is reset: it only looked at some."""

    owner: Any
    iterator: Any
    reset: bool

    @property
    def by_workers(self) -> bool:
        """Whether Keras has workers, which it does not start for us but may for a dataset around ours."""
        return getattr(self.owner, "enqueuer", None) is not None


def generator(directly: bool = False) -> Asker | None:
    """Return the generator of Keras' that led to the caller, or that called it ``directly``."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_flags & inspect.CO_GENERATOR and _module(frame).endswith(_ADAPTERS):
            names = frame.f_locals
            return Asker(id(frame), weakref.ref(names["self"]), names.get("i", names.get("index")))
        frame = None if directly else frame.f_back
    return None


def epoch_call() -> EpochCall | None:
    """Return which epoch begins or ends; None where it was not Keras that called."""
    frame: FrameType | None = sys._getframe(2)
    adapter = None
    while frame is not None:
        if _module(frame).endswith(_EPOCHS):
            return EpochCall(adapter, frame.f_locals["self"], frame.f_code.co_name == "reset")
        if _module(frame).endswith(_ADAPTERS):
            adapter = frame.f_locals["self"]
        frame = frame.f_back
    return None


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))

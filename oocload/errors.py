"""The exceptions and warnings that oocload raises.

::

    OocloadError
      InvalidArgumentError   (ValueError)         an argument breaks its rule
        MemoryCeilingError                        the ceiling is below what the loader needs
        StateError                                a saved state belongs to something else
      UnknownFieldError      (KeyError)           a name that the store does not have
      StoreNotFoundError     (FileNotFoundError)  nothing lies at the path
      StoreFormatError       (ValueError)         the file is not what its name says, or is damaged
      ChunkError             (OSError)            a chunk cannot be read or decoded
      TargetExistsError      (FileExistsError)    the destination is taken
      ConversionError        (RuntimeError)       a conversion stopped; nothing is at the destination
      CheckpointError        (OSError)            a checkpoint of a training run is damaged
      ClosedError            (RuntimeError)       used after close()
      TransformError         (RuntimeError)       a process that ran transforms ended, or raised what cannot be sent
      MissingPackageError    (ImportError)        an optional package is not installed

    OocloadWarning           (UserWarning)
      ReadAmplificationWarning    chunks are decoded more than once an epoch
      ShuffleQualityWarning       the window is too small to mix well
      KeptBatchesWarning          the consumer keeps batches beyond the memory ceiling
      MemoryCeilingWarning        the ceiling is above what the machine has

Every error also inherits the builtin that people already catch.
"""

from __future__ import annotations

import sys
import warnings


class OocloadError(Exception):
    """Root of every error that oocload raises on purpose."""


class InvalidArgumentError(OocloadError, ValueError):
    """An argument breaks its rule; the message says which rule and what to do."""


class MemoryCeilingError(InvalidArgumentError):
    """The memory ceiling is too small; the message names the smallest that works."""


class StateError(InvalidArgumentError):
    """A saved state does not belong to this loader."""


class UnknownFieldError(OocloadError, KeyError):
    """A field was asked for that the store does not have."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""  # KeyError would show the repr


class StoreNotFoundError(OocloadError, FileNotFoundError):
    """Nothing lies at the given path."""


class StoreFormatError(OocloadError, ValueError):
    """A file is not of the format that its name says, is damaged, or holds what no model can take."""


class ChunkError(OocloadError, OSError):
    """A chunk could not be read or decoded; the message names path, field and chunk."""


class TargetExistsError(OocloadError, FileExistsError):
    """The destination of a conversion exists already."""


class ConversionError(OocloadError, RuntimeError):
    """A conversion stopped half-way; nothing was left at the destination's name."""


class CheckpointError(OocloadError, OSError):
    """A checkpoint of a training run cannot be read; the message says what to delete."""


class ClosedError(OocloadError, RuntimeError):
    """An object was used after its ``close()``."""


class TransformError(OocloadError, RuntimeError):
    """A process that ran transforms ended in the middle of a batch, or one raised what cannot be passed on."""


class MissingPackageError(OocloadError, ImportError):
    """An optional package is needed and is not installed; the message has the ``pip`` line."""


class OocloadWarning(UserWarning):
    """Root of every warning that oocload gives."""


class ReadAmplificationWarning(OocloadWarning):
    """Fields with unlike chunk heights make the loader decode some chunks more than once an epoch."""


class ShuffleQualityWarning(OocloadWarning):
    """The memory ceiling leaves a window of so few blocks that rows mix poorly."""


class MemoryCeilingWarning(OocloadWarning):
    """The memory ceiling is above what this process can have, so it may be killed below it."""


class KeptBatchesWarning(OocloadWarning):
    """The consumer keeps batches alive, so memory goes beyond the ceiling."""


def warn(message: str, category: type[OocloadWarning]) -> None:
    """Warn at the line outside of oocload that led here."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


_PACKAGE = __name__.partition(".")[0]

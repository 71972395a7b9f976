"""Callbacks for ``model.fit``: going on exactly where a run was stopped, and showing how long the model waits."""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from oocload.adapters import random_state
from oocload.adapters.handed import Handed
from oocload.adapters.progress import Progress
from oocload.adapters.replay import Base
from oocload.adapters.saved import Directory, Saved
from oocload.errors import InvalidArgumentError, StateError
from oocload.loader.options import whole_number
from oocload.optional import require_keras

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

keras: Any = require_keras("oocload.keras")


class Checkpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves model, optimizer, metrics and loader, and goes on at the next batch of the same epoch.

    A run that is stopped, or killed, at any batch and started again ends with the same weights as one that is not, bit
    for bit where the backend computes the same twice (on CPUs; on GPUs with deterministic operations). The model
    trains on what is not saved once more. Give ``fit`` the same arguments as before, and the loader the same seed, or
    none: then that of the checkpoint is taken.

    Parameters
    ----------
    loader
        Whose ``to_keras()`` or ``to_tf()`` is given to ``fit``: that, or what ``map`` and ``prefetch`` make of it. It
        is set to where the checkpoint stands.
    directory
        Where checkpoints are kept, for this run alone (and this rank). The newest is loaded when ``fit`` begins.
    every
        Batches after which to save; None saves at the ends of epochs alone.
    keep
        Checkpoints to keep.

    Raises
    ------
    InvalidArgumentError
        If an argument breaks its rule.
    CheckpointError
        In ``fit``: if the newest checkpoint is damaged.
    StateError
        In ``fit``: if it is of another store, other options, another model or backend, or other steps per epoch.

    Notes
    -----
    A checkpoint of an epoch's end is written when all other callbacks are done with it: before the next batch, or at
    the end of training. What other callbacks count (the patience of ``EarlyStopping``) is theirs to keep. On
    PyTorch's and JAX's backends give ``fit`` a dataset of `to_keras`.

    """

    def __init__(
        self, loader: BatchSource, directory: str | os.PathLike[str], every: int | None = None, keep: int = 2
    ) -> None:
        super().__init__()
        self._loader = loader
        self._every = None if every is None else whole_number("every", every, 1)
        self._directory = Directory(directory, whole_number("keep", keep, 1))
        self._progress: Progress | None = None
        self._history: dict[str, Any] = {}
        self._quiet: Any = None

    # Called by Keras

    def on_train_begin(self, logs: Any = None) -> None:
        """Load the newest checkpoint."""
        n_batches, at_once = len(self._loader), _at_once(self.model)
        asked = self.params.get("steps") or n_batches
        steps = min(-(-asked // at_once) * at_once, n_batches)
        self._since_saved, self._unsaved = 0, False
        self._metrics: list[Any] | None = None  # where validation has reset them
        self._loud()
        self._restored: Saved | None = None
        # State of random generators between epochs: there, on PyTorch, Keras draws from them for iterators, more often
        # in a run that is not resumed.
        self._drawn: list[Any] | None = None
        self._cuts = False  # whether epochs may end where the dataset does not
        self._loader.pass_lengths.clear()
        saved = self._directory.newest()
        if saved is None:
            stand = self._loader.stand()
            self._progress = Progress(n_batches, steps, Base(stand.epoch, stand.batch))
        else:
            self._progress = self._restore(saved, n_batches, steps)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set what Keras has reset since `on_train_begin` to where the checkpoint has it."""
        progress = self._running()
        if self._restored is not None:
            self._resume_epoch(self._restored)
            self._restored = None
        else:
            progress.epoch = epoch
        self._first_step, self._n_steps = progress.step, progress.left
        self._metrics = None
        if self._cuts:
            warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
            self._quiet = warnings.filters[0]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Save the end of the epoch before; end an epoch that is shorter than Keras knows."""
        if self._drawn is not None:
            random_state.restore(keras.backend.backend(), self._drawn)
            self._drawn = None
        if self._unsaved:
            self._save()
        if self._cuts and batch >= self._n_steps:
            raise StopIteration  # as at the end of a dataset, which Keras goes on from

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Save, where enough batches were trained on."""
        progress = self._running()
        at_once = _at_once(self._model)
        if batch + 1 > -(-self._n_steps // at_once) * at_once:
            raise StateError(
                f"fit must be given loader.to_keras() or loader.to_tf() for a checkpoint, and trains on more than the "
                f"{self._n_steps} batches that this loader has left in its epoch; leave out repeat()"
            )
        n_done = min(batch + 1, self._n_steps) - (progress.step - self._first_step)
        progress.advance(n_done)
        self._since_saved += n_done
        if not progress.left:
            self._drawn = random_state.states(keras.backend.backend())
        if self._every is not None and self._since_saved >= self._every and progress.left:
            self._save()
        if self._cuts and progress.in_pass == progress.n_batches and keras.backend.backend() == "tensorflow":
            raise StopIteration  # the dataset goes on beyond the loader's epoch; the next begins with it

    def on_test_begin(self, logs: Any = None) -> None:
        """Keep what validation changes of an epoch that is stopped early: metrics, and the random generators."""
        if self._progress is not None and self._progress.step and self._metrics is None:
            self._metrics = [_array(v) for v in self.model.metrics_variables]
            self._drawn = random_state.states(keras.backend.backend()) if self._drawn is None else self._drawn

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Note that an epoch's end is to be saved; after the last one nobody comes who could be waited for."""
        progress = self._running()
        if self._drawn is None:
            self._drawn = random_state.states(keras.backend.backend())
        self._loud()
        if self.model.stop_training and progress.left:  # in the middle of it, where the next run goes on
            self._save()
            return
        progress.advance(progress.left)  # where several batches are one step of Keras', the last ones are not told
        cut = self._cuts and (self._n_steps < progress.steps or self._ends_with_epochs(progress))
        progress.end_epoch()
        if cut:
            self._loader.go_to(*progress.position)
        self._cuts = self._cuts and self._goes_on_cutting(progress)
        self._unsaved = True
        self._note_history(epoch, logs)
        if progress.epoch >= self.params["epochs"] or self.model.stop_training:
            self._save()

    def on_train_end(self, logs: Any = None) -> None:
        """Leave passes over the loader as long as they are."""
        if self._unsaved:
            self._save()
        self._loader.pass_lengths.clear()
        self._loud()
        self.model._initial_epoch = None

    def _ends_with_epochs(self, progress: Progress) -> bool:
        """Whether this epoch of Keras' was ended here because the loader's was at its end."""
        return progress.in_pass == progress.n_batches and keras.backend.backend() == "tensorflow"

    def _goes_on_cutting(self, progress: Progress) -> bool:
        """Whether epochs may still end where the dataset does not: until Keras makes whole passes again."""
        rolling = progress.n_batches % progress.steps == 0 and keras.backend.backend() != "tensorflow"
        return bool(progress.in_pass) and not rolling

    def _loud(self) -> None:
        """Have Keras warn again where data run out."""
        if self._quiet is not None:
            with suppress(ValueError):
                warnings.filters.remove(self._quiet)  # type: ignore[attr-defined]
        self._quiet = None

    # Saving

    def _running(self) -> Progress:
        assert self._progress is not None
        return self._progress

    def _save(self) -> None:
        progress, model = self._running(), self.model
        variables = _variables(model)
        metrics: list[Any] = []  # which begin anew with each epoch
        if progress.step:
            metrics = [_array(v) for v in model.metrics_variables] if self._metrics is None else self._metrics
        facts = {
            "backend": keras.backend.backend(),
            "n_batches": progress.n_batches,
            "steps": progress.steps,
            "base": progress.base,
            "in_pass": progress.in_pass,
            "epoch": progress.epoch,
            "step": progress.step,
            "n_model": len(variables),
            "n_metrics": len(metrics),
            "names": [v.path for v in variables],
            "optimizers": _names_of_optimizers(model),
            "history": self._history,
            "loader": self._loader.state_dict(epoch=progress.position.epoch, batch=progress.position.batch),
        }
        arrays = [*(_array(v) for v in variables), *metrics]
        arrays += random_state.states(keras.backend.backend()) if self._drawn is None else self._drawn
        self._directory.save(f"{progress.epoch:06d}-{progress.step:010d}", facts, arrays)
        self._since_saved, self._unsaved = 0, False

    def _note_history(self, epoch: int, logs: Any) -> None:
        self._history.setdefault("epoch", []).append(int(epoch))
        kept = self._history.setdefault("history", {})
        for name, value in (logs or {}).items():
            if isinstance(value, int | float | np.number):
                kept.setdefault(name, []).append(float(value))

    # Restoring

    def _restore(self, saved: Saved, n_batches: int, steps: int) -> Progress:
        """Set model, optimizer and loader to where a checkpoint stands; nothing changes where it does not fit."""
        facts = saved.facts
        self._check(saved, "backend", facts["backend"], keras.backend.backend())
        self._check(saved, "optimizer", facts["optimizers"], _names_of_optimizers(self.model))
        if facts["n_batches"] == n_batches:  # else the loader says why
            self._check(saved, "steps_per_epoch", facts["steps"], steps)
        left, at_once = min(steps - facts["step"], n_batches - facts["in_pass"]), _at_once(self.model)
        if left % at_once and facts["step"] and keras.backend.backend() == "tensorflow":
            raise StateError(
                f"steps_per_execution must divide the {left} batches that are left of the epoch in {saved.path}, got "
                f"{at_once}; compile with steps_per_execution=1"
            )
        _build(self.model, self._loader)
        variables = _variables(self.model)
        self._check_variables(saved, variables)
        try:
            self._loader.load_state_dict(facts["loader"])
        except InvalidArgumentError as exc:
            raise type(exc)(f"checkpoint {saved.path} does not belong to this run: {exc}") from exc
        for variable, array in zip(variables, saved.arrays, strict=False):
            variable.assign(array)
        progress = Progress(n_batches, steps, Base(*facts["base"]), facts["in_pass"], facts["epoch"], facts["step"])
        self._loader.pass_lengths.update(progress.lengths())
        self._cuts = bool(progress.step) or self._goes_on_cutting(progress)
        self._restored, self._history = saved, facts["history"]
        self._drawn = saved.arrays[facts["n_model"] + facts["n_metrics"] :]
        self.model._initial_epoch = progress.epoch  # as Keras' own BackupAndRestore does
        return progress

    def _resume_epoch(self, saved: Saved) -> None:
        """Set what Keras resets after `on_train_begin`: history, and the metrics of the epoch under way."""
        model = self.model
        model._initial_epoch = None
        if getattr(model, "history", None) is not None:
            model.history.epoch = list(self._history.get("epoch", []))
            model.history.history = {name: list(values) for name, values in self._history.get("history", {}).items()}
        n_model = saved.facts["n_model"]
        metrics = saved.arrays[n_model : n_model + saved.facts["n_metrics"]]
        if len(metrics) == len(model.metrics_variables):
            for variable, array in zip(model.metrics_variables, metrics, strict=True):
                variable.assign(array)

    def _check(self, saved: Saved, what: str, there: Any, here: Any) -> None:
        if there != here:
            raise StateError(
                f"checkpoint {saved.path} does not belong to this run: {what} is {there!r} there and {here!r} here"
            )

    def _check_variables(self, saved: Saved, variables: list[Any]) -> None:
        n_model, names = saved.facts["n_model"], saved.facts["names"]
        self._check(saved, "the number of variables", n_model, len(variables))
        for name, array, variable in zip(names, saved.arrays, variables, strict=False):
            self._check(saved, f"the shape of {name!r} ({variable.path!r} here)", array.shape, tuple(variable.shape))


class DataWait(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds ``data_wait`` and ``rows_per_s`` to the logs: the progress bar, ``History`` and what comes after it.

    ``data_wait`` is the share of the epoch so far, 0 to 1, for which the model waited for batches; ``rows_per_s`` are
    the rows trained on per second of it. Put it before callbacks that write logs, such as ``TensorBoard``.

    Parameters
    ----------
    loader
        Whose ``to_keras()`` or ``to_tf()`` is given to ``fit``.

    Notes
    -----
    A batch that is decoded in the thread that trains (PyTorch's and JAX's backends) was waited for while it was; one
    that TensorFlow takes ahead, from when the model asks for it until it is handed over. Where ``steps_per_execution``
    is above 1, of each execution the first batch counts.

    """

    def __init__(self, loader: BatchSource) -> None:
        super().__init__()
        self._loader = loader

    def on_train_begin(self, logs: Any = None) -> None:
        """Have batches noted as they are handed over."""
        self._loader.handed = Handed()
        self._at: Base | None = None

    def on_train_end(self, logs: Any = None) -> None:
        """Note them no more."""
        self._loader.handed = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to count."""
        if self._at is None:
            self._at = Base(*self._loader.stand()[:2])
        self._began = self._asked = time.perf_counter()
        self._waited, self._elapsed, self._n_rows, self._n_done = 0.0, 0.0, 0, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note when the model asks."""
        self._asked = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count what the model was trained on, and how long it waited for it."""
        handed, at = self._loader.handed, self._at
        if handed is None or at is None:
            return
        n_batches = len(self._loader)
        n_done = min(batch + 1, n_batches)
        for number in range(self._n_done, n_done):
            position = at.plus(number, n_batches)
            self._n_rows += self._loader.rows_of(position.batch)
            first = number == self._n_done
            self._waited += handed.waited(position, self._asked if first else None, threading.get_ident())
        self._n_done = n_done
        self._elapsed = time.perf_counter() - self._began
        self._add(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Go on to the next epoch."""
        self._add(logs)
        n_batches = len(self._loader)
        asked = min(self.params.get("steps") or n_batches, n_batches)
        if self._at is not None:  # of several batches in one step of Keras', the last ones may not have been told
            n_done = asked if 0 < asked - self._n_done < _at_once(self._model) else self._n_done
            self._at = self._at.plus(n_done, n_batches)

    def _add(self, logs: Any) -> None:
        if logs is not None and self._elapsed > 0:
            logs["data_wait"] = min(1.0, self._waited / self._elapsed)
            logs["rows_per_s"] = self._n_rows / self._elapsed


def _variables(model: Any) -> list[Any]:
    """Return all that training changes, in an order of its own: weights, seeds, and the optimizer's."""
    optimizers = _optimizers(model)
    first = getattr(model, "optimizer", None)
    if first is not None and not first.built:
        first.build(model.trainable_variables)
    of_optimizers = [variable for optimizer in optimizers for variable in optimizer.variables]
    return [*model.trainable_variables, *model.non_trainable_variables, *of_optimizers]


def _optimizers(model: Any) -> list[Any]:
    """Return the model's optimizer, and others that it has beside (as for two networks)."""
    others = [v for _, v in sorted(vars(model).items()) if isinstance(v, keras.optimizers.Optimizer)]
    first = getattr(model, "optimizer", None)
    return [*([] if first is None else [first]), *(other for other in others if other is not first)]


def _names_of_optimizers(model: Any) -> list[str]:
    return [type(optimizer).__name__ for optimizer in _optimizers(model)]


def _array(variable: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def _at_once(model: Any) -> int:
    """Return the batches that are one step of Keras'."""
    return int(getattr(model, "steps_per_execution", 1) or 1)


def _build(model: Any, loader: BatchSource) -> None:
    """Make the variables of model and metrics, as Keras does from the first batch (on TensorFlow in the first step)."""
    stand = loader.stand()
    batch = loader.batch_at(stand.epoch, stand.batch)
    model._symbolic_build(data_batch=batch)

"""Checkpoints and waiting times inside ``model.fit``; `test_backends.py` runs these on Keras' other backends."""

import threading
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.adapters.handed import Handed
from oocload.adapters.replay import Base
from oocload.errors import CheckpointError, InvalidArgumentError, StateError
from tests.adapters.frameworks import BATCH, N_BATCHES, WINDOW, write

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.framework

from oocload.keras import Checkpoint, DataWait  # noqa: E402

BACKEND = keras.backend.backend()
WAYS = ["to_keras", "to_tf"] if BACKEND == "tensorflow" else ["to_keras"]


class Stopped(Exception):
    """Stands for whatever stops a run."""


class StopAt(keras.callbacks.Callback):
    """Raises after so many batches."""

    def __init__(self, n_batches: int) -> None:
        super().__init__()
        self.left = n_batches

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            raise Stopped


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody pulls the plug here."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "c.h5")


def model(units: int = 8) -> Any:
    """Return a model with all that has state: an adaptive optimizer, batch statistics, a dropout, metrics."""
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Rescaling(1e-4),
            keras.layers.Dense(units, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


def run(path: Path, directory: Path, way: str, stop: int | None = None, **options: Any) -> tuple[list[Any], Any]:
    """Train, to the end or to where it is stopped, as a new process would; return weights and history."""
    fitted = model()
    steps_per_execution = options.pop("steps_per_execution", 1)
    if steps_per_execution > 1:
        fitted.compile("adam", "mse", metrics=["mae"], steps_per_execution=steps_per_execution)
    with ExitStack() as stack:
        loader = stack.enter_context(oocload.Loader(path, BATCH, seed=options.pop("seed", 3), shuffle=WINDOW))
        callbacks = [Checkpoint(loader, directory, every=options.pop("every", 7), keep=2)]
        callbacks += [*([] if stop is None else [StopAt(stop)]), *options.pop("more", [])]
        if options.pop("validate", False):
            val = stack.enter_context(oocload.Loader(path, BATCH, shuffle=False))
            options["validation_data"] = getattr(val, way)()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
            if options.get("steps_per_epoch") and N_BATCHES % options["steps_per_epoch"]:
                warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
            history = fitted.fit(getattr(loader, way)(), verbose=0, callbacks=callbacks, **{"epochs": 2, **options})
        variables = [*fitted.variables, *fitted.optimizer.variables]
        return [np.asarray(keras.ops.convert_to_numpy(v)) for v in variables], history


OPTIONS: dict[str, dict[str, Any]] = {
    "epochs": {},
    "validated": {"validate": True},
    "steps that divide": {"steps_per_epoch": 21, "epochs": 4},
    "steps that do not": {"steps_per_epoch": 20, "epochs": 5},
    "only at ends of epochs": {"every": None},
    "several steps at once": {"steps_per_execution": 3},
}


# Each of these tests is run on three backends: what depends on them. Others here are of validated runs, on each.
ON = {
    ("tensorflow", "to_keras"): ["epochs", "steps that divide", "steps that do not", "several steps at once"],
    ("tensorflow", "to_tf"): ["validated", "steps that divide", "steps that do not", "only at ends of epochs"],
    ("jax", "to_keras"): ["steps that divide", "several steps at once"],
    ("torch", "to_keras"): ["steps that divide", "steps that do not"],
}


@pytest.mark.parametrize(("way", "name"), [(way, name) for way in WAYS for name in ON[BACKEND, way]])
def test_a_stopped_run_ends_with_the_same_weights(path: Path, tmp_path: Path, way: str, name: str) -> None:
    options = OPTIONS[name]
    several = options.get("steps_per_execution", 1)
    expected, history = run(path, tmp_path / "whole", way, **options)
    for stop in (20 // several, 43 // several):
        with pytest.raises(Stopped):
            run(path, tmp_path / "stopped", way, stop=stop, **options)
    weights, resumed = run(path, tmp_path / "stopped", way, **options)
    for a, b in zip(expected, weights, strict=True):
        assert a.tobytes() == b.tobytes()
    assert resumed.epoch == history.epoch
    assert resumed.history == history.history


def test_a_run_goes_on_with_more_epochs(path: Path, tmp_path: Path) -> None:
    validate = True
    expected, history = run(path, tmp_path / "whole", "to_keras", epochs=4, validate=validate)
    run(path, tmp_path / "parts", "to_keras", epochs=2, validate=validate)
    again, nothing = run(path, tmp_path / "parts", "to_keras", epochs=2, validate=validate)
    weights, resumed = run(path, tmp_path / "parts", "to_keras", epochs=4, validate=validate)
    assert nothing.history == {}
    assert resumed.history == history.history
    for a, b in zip(expected, weights, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_loader_without_a_seed_takes_that_of_the_checkpoint(path: Path, tmp_path: Path) -> None:
    run(path, tmp_path / "run", "to_keras", seed=None, epochs=1)
    seeds = []
    for _ in range(2):
        with oocload.Loader(path, BATCH, shuffle=WINDOW) as loader:
            model().fit(loader.to_keras(), epochs=1, verbose=0, callbacks=[Checkpoint(loader, tmp_path / "run")])
            seeds.append(loader.state_dict()["seed"])
    assert seeds[0] == seeds[1]


def test_the_last_few_are_kept(path: Path, tmp_path: Path) -> None:
    run(path, tmp_path / "run", "to_keras", epochs=2)
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["checkpoint-000001-0000000056.npz", "checkpoint-000002-0000000000.npz"]


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "options": ({"batch_size": 16}, r"does not belong to this run: state must belong .*batch_size is 32 there and 16"),
    "seed": ({"seed": 4}, r"does not belong to this run: .*seed is 3 there and 4 here"),
    "model": ({"units": 9}, r"the shape of .*kernel.* is \(12, 8\) there and \(12, 9\) here"),
    "steps": ({"steps_per_epoch": 10}, r"steps_per_epoch is 63 there and 10 here"),
}


@pytest.mark.parametrize(("options", "message"), list(WRONG.values()), ids=list(WRONG))
def test_a_checkpoint_of_another_run_is_refused(
    path: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Stopped):
        run(path, tmp_path / "run", "to_keras", stop=20)
    fitted = model(options.pop("units", 8))
    before = fitted.get_weights()
    given = {"batch_size": BATCH, "seed": 3, **options}
    fit_options = {"steps_per_epoch": given.pop("steps_per_epoch")} if "steps_per_epoch" in given else {}
    with oocload.Loader(path, shuffle=WINDOW, **given) as loader:
        with pytest.raises(StateError, match=message):
            fitted.fit(loader.to_keras(), verbose=0, callbacks=[Checkpoint(loader, tmp_path / "run")], **fit_options)
        assert loader.stand()[:2] == (0, 0)
    for a, b in zip(before, fitted.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_a_damaged_checkpoint_is_named(path: Path, tmp_path: Path) -> None:
    run(path, tmp_path / "run", "to_keras", epochs=1)
    newest = max((tmp_path / "run").iterdir())
    newest.write_bytes(newest.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match=rf"{newest.name} is damaged .*; delete that file to go on from"):
        run(path, tmp_path / "run", "to_keras", epochs=2)


@pytest.mark.parametrize(("options", "message"), [({"every": 0}, "every must be"), ({"keep": 0}, "keep must be")])
def test_bad_options(path: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with oocload.Loader(path, BATCH) as loader, pytest.raises(InvalidArgumentError, match=message):
        Checkpoint(loader, tmp_path, **options)


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_stops_itself_goes_on_in_the_middle(path: Path, tmp_path: Path, way: str) -> None:
    """As a callback that knows when the time is up does, before the epoch ends."""

    class TimeIsUp(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == 30

    options: dict[str, Any] = {"validate": True, "every": None}
    expected, history = run(path, tmp_path / "whole", way, **options)
    run(path, tmp_path / "stopped", way, more=[TimeIsUp()], **options)
    weights, resumed = run(path, tmp_path / "stopped", way, **options)
    assert resumed.history == history.history
    for a, b in zip(expected, weights, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch's backend trains one batch at a time")
def test_several_batches_at_once_that_do_not_divide_the_steps(path: Path, tmp_path: Path) -> None:
    """Keras trains on 21 batches where 20 are asked for, three at a time."""
    options: dict[str, Any] = {"steps_per_epoch": 20, "steps_per_execution": 3, "epochs": 5, "every": 6}
    expected, history = run(path, tmp_path / "whole", "to_keras", **options)
    with pytest.raises(Stopped):
        run(path, tmp_path / "stopped", "to_keras", stop=16, **options)
    weights, resumed = run(path, tmp_path / "stopped", "to_keras", **options)
    assert resumed.history == history.history
    for a, b in zip(expected, weights, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's datasets")
def test_a_dataset_that_is_repeated_is_refused(path: Path, tmp_path: Path) -> None:
    with oocload.Loader(path, BATCH, seed=3, shuffle=WINDOW) as loader:
        callbacks = [Checkpoint(loader, tmp_path / "run")]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
            with pytest.raises(StateError, match="trains on more than the 63 batches .*; leave out repeat"):
                model().fit(loader.to_tf().repeat(), steps_per_epoch=100, verbose=0, callbacks=callbacks)


# Waiting


def test_waiting_is_counted_by_thread_and_by_when_it_was_asked_for() -> None:
    handed, mine, here = Handed(), Base(0, 1), threading.get_ident()
    handed.note(mine, 10.0, 12.5)
    assert handed.waited(mine, asked=11.0, thread=here) == 2.5
    assert handed.waited(mine, asked=11.0, thread=here) == 0.0
    for asked, waited in ((11.0, 1.5), (13.0, 0.0), (None, 0.0)):
        handed.note(mine, 10.0, 12.5)
        assert handed.waited(mine, asked=asked, thread=here + 1) == waited


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transform", [None, lambda batch: batch])
def test_waiting_shows_in_the_logs(path: Path, way: str, transform: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with oocload.Loader(path, BATCH, seed=0, shuffle=WINDOW, transform=transform) as loader:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`shuffle=True` was passed", UserWarning)
            history = model().fit(getattr(loader, way)(), epochs=3, verbose=2, callbacks=[DataWait(loader)]).history
        assert loader.handed is None
    assert len(history["rows_per_s"]) == 3
    assert all(0 <= share <= 1 for share in history["data_wait"])
    assert any(history["data_wait"])
    assert all(rate > 0 for rate in history["rows_per_s"])
    shown = capsys.readouterr().out
    assert "data_wait: " in shown
    assert "rows_per_s: " in shown


@pytest.mark.skipif(BACKEND != "tensorflow", reason="the same on each")
def test_waiting_shows_in_tensorboard(path: Path, tmp_path: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorboard")
    with oocload.Loader(path, BATCH, seed=0, shuffle=WINDOW) as loader:
        callbacks = [DataWait(loader), keras.callbacks.TensorBoard(tmp_path / "logs")]
        model().fit(loader.to_keras(), epochs=2, verbose=0, callbacks=callbacks)
    tags = {
        value.tag
        for file in (tmp_path / "logs" / "train").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert {"epoch_data_wait", "epoch_rows_per_s"} <= tags

"""`torchdata`'s StatefulDataLoader, the real one: stopped anywhere, and gone on with exactly there."""

import hashlib
import itertools
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import oocload
from tests.adapters.frameworks import BATCH, N_BATCHES, WINDOW, assert_same, stream, write

pytest.importorskip("torch")
stateful = pytest.importorskip("torchdata.stateful_dataloader")

pytestmark = [
    pytest.mark.framework,
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11 on PyTorch 2.13
]

ROOT = Path(__file__).parents[2]
FORKED = {"num_workers": 2, "multiprocessing_context": "fork"}
WORKERS = pytest.mark.parametrize("workers", [{"num_workers": 0}, FORKED], ids=["alone", "forked"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


def open_loader(path: Path) -> oocload.Loader:
    return oocload.Loader(path, BATCH, seed=1, shuffle=WINDOW)


def stateful_loader(loader: oocload.Loader, workers: dict[str, Any]) -> Any:
    return stateful.StatefulDataLoader(loader.to_torch(), batch_size=None, **workers)


def taken(batches: Any) -> list[Any]:
    return [(x.numpy().copy(), y.numpy().copy()) for x, y in batches]


def stop_after(path: Path, n_batches: int, workers: dict[str, Any]) -> tuple[list[Any], Any]:
    """Return so many batches, and the state after the last of them, as a file would keep it."""
    got: list[Any] = []
    with open_loader(path) as loader:
        batches = stateful_loader(loader, workers)
        while len(got) < n_batches:
            epoch = iter(batches)
            got += taken(itertools.islice(epoch, n_batches - len(got)))
        return got, pickle.dumps(batches.state_dict())


@WORKERS
@pytest.mark.parametrize("stop", [0, 1, 30, N_BATCHES - 1, N_BATCHES, N_BATCHES + 1, 100])
def test_goes_on_where_it_stopped(path: Path, stop: int, workers: dict[str, Any]) -> None:
    with open_loader(path) as plain:
        expected = stream(plain, 4)
    got, state = stop_after(path, stop, workers)
    with open_loader(path) as loader:
        batches = stateful_loader(loader, workers)
        batches.load_state_dict(pickle.loads(state))
        while len(got) < len(expected):
            got += taken(batches)
    assert_same(expected, got)


@WORKERS
@pytest.mark.parametrize("n_epochs", [1, 2])
def test_goes_on_with_the_next_epoch(path: Path, n_epochs: int, workers: dict[str, Any]) -> None:
    """From the state after a whole ``for``, of which StatefulDataLoader notes that it ended."""
    with open_loader(path) as plain:
        expected = stream(plain, 3)
    with open_loader(path) as loader:
        batches = stateful_loader(loader, workers)
        got = taken(batch for _ in range(n_epochs) for batch in batches)
        state = pickle.dumps(batches.state_dict())
    with open_loader(path) as loader:
        batches = stateful_loader(loader, workers)
        batches.load_state_dict(pickle.loads(state))
        while len(got) < len(expected):
            got += taken(batches)
    assert_same(expected, got)


@WORKERS
def test_a_state_of_every_step_is_of_that_step(path: Path, workers: dict[str, Any]) -> None:
    """Asked again and again while the epoch goes on, and loaded into the loader that it came from."""
    with open_loader(path) as plain:
        expected = stream(plain, 1)
    with open_loader(path) as loader:
        batches = stateful_loader(loader, workers)
        states = [batches.state_dict() for _ in batches]
        for step in (50, 3):
            batches.load_state_dict(states[step])
            assert_same(expected[step + 1 :], taken(batches))


def digest(batches: list[Any]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for batch in batches for array in batch)).hexdigest()


@WORKERS
def test_another_process_goes_on(path: Path, tmp_path: Path, workers: dict[str, Any]) -> None:
    with open_loader(path) as plain:
        expected = stream(plain, 3)
    _, state = stop_after(path, 30, workers)
    (tmp_path / "state").write_bytes(state)
    command = [sys.executable, "-m", "tests.adapters.test_stateful_dataloader", path, tmp_path / "state", str(workers)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [digest(expected[30:])]


if __name__ == "__main__":
    import ast

    with open_loader(Path(sys.argv[1])) as loader:
        batches = stateful_loader(loader, ast.literal_eval(sys.argv[3]))
        batches.load_state_dict(pickle.loads(Path(sys.argv[2]).read_bytes()))
        print(digest(taken(batch for _ in range(3) for batch in batches)))

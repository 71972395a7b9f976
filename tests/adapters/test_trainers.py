"""Training by other people's loops, with the real packages: each row once an epoch, in the loader's order."""

import itertools
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError
from tests.adapters.frameworks import BATCH, N_BATCHES, N_ROWS, WINDOW, stream, write

torch = pytest.importorskip("torch")
from torch.utils.data import DataLoader  # noqa: E402

from tests.adapters.regression import Regression  # noqa: E402

pytestmark = [
    pytest.mark.framework,
    # torchdata 0.11 on PyTorch 2.13
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),
    # Lightning 2.6 on PyTorch 2.13
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # Lightning on any iterable dataset with a length, on few workers, and on a GPU that it was told to leave alone
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5")


@pytest.fixture
def order(path: Path) -> list[list[int]]:
    """The rows of each batch of three epochs, as the NumPy iterator gives them."""
    with open_loader(path) as plain:
        return [y.tolist() for _, y in stream(plain, 3)]


def open_loader(path: Path, **options: Any) -> oocload.Loader:
    return oocload.Loader(path, BATCH, **{"seed": 1, "shuffle": WINDOW, **options})


def test_every_row_once_an_epoch(order: list[list[int]]) -> None:
    """What the other tests compare with."""
    for epoch in range(3):
        rows = order[epoch * N_BATCHES : (epoch + 1) * N_BATCHES]
        assert sorted(itertools.chain(*rows)) == list(range(N_ROWS))


def test_a_loop_of_ones_own(path: Path) -> None:
    """The same losses as of the same regression written in NumPy."""

    def numpy_losses() -> Iterator[float]:
        weights, bias = np.zeros(12), 0.0
        with open_loader(path) as loader:
            for x, y in (batch for _ in range(2) for batch in loader):
                x, y = x * 1e-5, y * 1e-3
                error = x @ weights + bias - y
                yield float((error**2).mean())
                weights -= 0.1 * 2 * (x * error[:, None]).mean(0)
                bias -= 0.1 * 2 * error.mean()

    def torch_losses() -> Iterator[float]:
        model = torch.nn.Linear(12, 1, dtype=torch.float64)
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        with open_loader(path) as loader:
            for x, y in (batch for _ in range(2) for batch in DataLoader(loader.to_torch(), batch_size=None)):
                loss = ((model(x.double() * 1e-5)[:, 0] - y * 1e-3) ** 2).mean()
                yield loss.item()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    losses = list(torch_losses())
    assert losses[-1] < losses[0] / 4
    np.testing.assert_allclose(losses, list(numpy_losses()), rtol=1e-4)


# PyTorch Lightning


@pytest.fixture(scope="module")
def lightning() -> Any:
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("lightning.pytorch")


@pytest.fixture
def model(lightning: Any) -> Any:
    class Model(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(12, 1)
            self.trained: list[list[int]] = []
            self.validated: list[list[int]] = []

        def training_step(self, batch: Any) -> Any:
            x, y = batch
            self.trained.append(y.tolist())
            return ((self.layer(x * 1e-5)[:, 0] - y * 1e-3) ** 2).mean()

        def validation_step(self, batch: Any) -> None:
            self.validated.append(batch[1].tolist())

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-2)

    return Model


@pytest.fixture
def trainer(lightning: Any, tmp_path: Path) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        options = {"enable_checkpointing": False, "default_root_dir": tmp_path, **quiet, **options}
        return lightning.Trainer(accelerator="cpu", **options)

    return make


def stateful(dataset: Any) -> Any:
    with warnings.catch_warnings(action="ignore"):
        module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(dataset, batch_size=None)


def as_it_is(dataset: Any) -> Any:
    return dataset


def in_dataloader(dataset: Any) -> Any:
    return DataLoader(dataset, batch_size=None)


WAYS = pytest.mark.parametrize("through", [as_it_is, in_dataloader, stateful])


@WAYS
def test_lightning_sees_each_row_once_an_epoch(
    path: Path, order: list[list[int]], model: Any, trainer: Any, through: Any
) -> None:
    """Validation, and the sanity check before the first epoch, take nothing from the training data."""
    with open_loader(path) as loader, open_loader(path, shuffle=False) as held_out:
        model = model()
        trainer(max_epochs=2).fit(model, through(loader.to_torch()), through(held_out.to_torch()))
    assert model.trained == order[: 2 * N_BATCHES]
    in_order = [list(range(first, min(first + BATCH, N_ROWS))) for first in range(0, N_ROWS, BATCH)]
    assert model.validated[-N_BATCHES:] == in_order
    assert len(model.validated) == 2 + 2 * N_BATCHES


# StatefulDataLoader goes on counting where the loader goes on with the next epoch
LONGER = pytest.mark.filterwarnings("ignore:Length of IterableDataset .* was reported to be 63")


@pytest.fixture
def fit(lightning: Any, tmp_path: Path, model: Any, trainer: Any) -> Callable[..., Any]:
    """Return a function that fits a new model, with checkpoints or from one, and returns it."""

    def run(*data: Any, when: dict[str, int], again: bool = False, **limits: int) -> Any:
        saving = lightning.callbacks.ModelCheckpoint(tmp_path / "saved", "{step:04d}", save_top_k=-1, **when)
        checkpoint = min((tmp_path / "saved").iterdir()) if again else None
        fitted = model()
        fitting = trainer(enable_checkpointing=True, callbacks=[saving], **limits)
        fitting.fit(fitted, *data, ckpt_path=checkpoint, weights_only=True)
        return fitted

    return run


@LONGER
@pytest.mark.parametrize("through", [as_it_is, stateful])
@pytest.mark.parametrize("stop", [30, N_BATCHES - 1, N_BATCHES, N_BATCHES + 1])
def test_lightning_goes_on_in_mid_epoch(
    path: Path, order: list[list[int]], fit: Any, through: Callable[[Any], Any], stop: int
) -> None:
    """Lightning keeps the state of what it iterates over, if that has `state_dict()`."""
    with open_loader(path) as loader:
        fit(through(loader.to_torch()), when={"every_n_train_steps": stop}, max_epochs=2)
    with open_loader(path) as loader:
        fitted = fit(through(loader.to_torch()), when={"every_n_train_steps": stop}, again=True, max_epochs=3)
    assert fitted.trained == order[stop:]


@pytest.mark.parametrize("through", [as_it_is, stateful])
def test_lightning_goes_on_after_its_last_step(
    path: Path, tmp_path: Path, order: list[list[int]], model: Any, trainer: Any, through: Callable[[Any], Any]
) -> None:
    with open_loader(path) as loader:
        stopped = trainer(max_steps=70)
        stopped.fit(model(), through(loader.to_torch()))
        stopped.save_checkpoint(tmp_path / "stopped.ckpt", weights_only=False)
    with open_loader(path) as loader:
        fitted, more = model(), trainer(max_steps=3 * N_BATCHES)
        more.fit(fitted, through(loader.to_torch()), ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    assert fitted.trained == order[70:]


@LONGER
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
@pytest.mark.parametrize("when", [{"every_n_epochs": 1}, {"every_n_train_steps": 30}, {"every_n_train_steps": 63}])
@WAYS
def test_lightning_goes_on_from_a_data_module(
    path: Path,
    order: list[list[int]],
    lightning: Any,
    fit: Any,
    through: Callable[[Any], Any],
    when: dict[str, int],
) -> None:
    """A data module keeps the loader's state in every checkpoint, also at the end of an epoch and with any loader."""

    class Data(lightning.LightningDataModule):  # type: ignore[misc]
        def setup(self, stage: str) -> None:
            self.loader = open_loader(path)

        def train_dataloader(self) -> Any:
            return through(self.loader.to_torch())

        def state_dict(self) -> dict[str, Any]:
            return self.loader.state_dict()

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.loader.load_state_dict(state)

        def teardown(self, stage: str) -> None:
            self.loader.close()

    fit(Data(), when=when, max_epochs=1)
    fitted = fit(Data(), when=when, again=True, max_epochs=3)
    assert fitted.trained == order[when.get("every_n_train_steps", N_BATCHES) :]


# Hugging Face


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("accelerate")
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("transformers")


@pytest.fixture
def train(transformers: Any, tmp_path: Path) -> Callable[..., Any]:
    """Return a function that trains by Hugging Face's Trainer, and returns that."""

    def run(
        loader: oocload.Loader, held_out: Any = None, resume: Any = None, callbacks: Any = None, **options: Any
    ) -> Any:
        class Trainer(transformers.Trainer):  # type: ignore[misc]
            def get_train_dataloader(self) -> Any:
                return DataLoader(loader.to_torch(), batch_size=None)

            def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
                return DataLoader(held_out.to_torch(), batch_size=None)

        options = {"save_strategy": "no", "logging_strategy": "no", "label_names": ["y"], **options}
        arguments = transformers.TrainingArguments(
            str(tmp_path / "out"), use_cpu=True, report_to=[], disable_tqdm=True, **options
        )
        trainer = Trainer(Regression(), arguments, callbacks=callbacks, eval_dataset=held_out and held_out.to_torch())
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    return run


@pytest.mark.parametrize(
    ("options", "n_batches"),
    [
        ({"num_train_epochs": 2}, 2 * N_BATCHES),
        ({"max_steps": 100}, 100),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 4}, 2 * N_BATCHES),
    ],
)
def test_hugging_face_sees_each_row_once_an_epoch(
    path: Path, order: list[list[int]], train: Any, options: dict[str, int], n_batches: int
) -> None:
    with open_loader(path, x=["x", "y"]) as loader:
        assert train(loader, **options).model.seen == order[:n_batches]


def test_hugging_face_evaluates(path: Path, order: list[list[int]], train: Any) -> None:
    with open_loader(path, x=["x", "y"]) as loader, open_loader(path, x=["x", "y"], shuffle=False) as held_out:
        trainer = train(loader, held_out, num_train_epochs=2, eval_strategy="epoch")
        batches = [rows for epoch in range(2) for rows in trainer.model.seen[epoch * 126 :][:N_BATCHES]]
        assert batches == order[: 2 * N_BATCHES]
        predicted = trainer.evaluation_loop(trainer.get_eval_dataloader(), "predict")
        assert predicted.label_ids.tolist() == list(range(N_ROWS))
        assert predicted.predictions.shape == (N_ROWS,)


@pytest.mark.parametrize("stop", [30, N_BATCHES])
@pytest.mark.parametrize("skip", [True, False])
def test_hugging_face_goes_on_in_mid_epoch(
    path: Path, tmp_path: Path, order: list[list[int]], transformers: Any, train: Any, stop: int, skip: bool
) -> None:
    """From the loader's state; or from the epoch's start, of which the Trainer passes over what was seen."""

    class KeepState(transformers.TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            (tmp_path / f"{state.global_step}.json").write_text(json.dumps(loader.state_dict()))

    with open_loader(path, x=["x", "y"]) as loader:
        saving = {"save_strategy": "steps", "save_steps": stop, "save_only_model": False}
        whole = train(loader, callbacks=[KeepState()], num_train_epochs=2, **saving).model
    with open_loader(path, x=["x", "y"]) as loader:
        if skip:
            loader.load_state_dict(loader.state_dict(epoch=stop // len(loader), batch=0))
        else:
            loader.load_state_dict(json.loads((tmp_path / f"{stop}.json").read_text()))
        resume = str(tmp_path / "out" / f"checkpoint-{stop}")
        model = train(loader, resume=resume, num_train_epochs=2, save_steps=stop, ignore_data_skip=not skip).model
    assert model.seen == order[stop : 2 * N_BATCHES]
    assert torch.equal(model.layer.weight, whole.layer.weight)


def test_hugging_face_given_the_dataset_itself(path: Path, tmp_path: Path, transformers: Any) -> None:
    """It would make batches of batches."""
    arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, report_to=[], disable_tqdm=True)
    with open_loader(path, x=["x", "y"]) as loader:
        trainer = transformers.Trainer(Regression(), arguments, train_dataset=loader.to_torch())
        with pytest.raises(InvalidArgumentError, match="batch_size of the DataLoader must be None: .* of 32 rows"):
            trainer.train()


# accelerate in one process; in several see test_ranks_torch.py


def test_accelerate_prepares_it(path: Path, order: list[list[int]]) -> None:
    accelerate = pytest.importorskip("accelerate")
    with open_loader(path) as loader:
        prepared = accelerate.Accelerator(cpu=True).prepare(DataLoader(loader.to_torch(), batch_size=None))
        assert len(prepared) == N_BATCHES
        assert [y.tolist() for _ in range(3) for _, y in prepared] == order


def test_accelerate_keeps_the_state(path: Path, order: list[list[int]]) -> None:
    """It reads a batch ahead, and its own `state_dict()` knows that."""
    accelerate = pytest.importorskip("accelerate")
    pytest.importorskip("torchdata")
    settings = accelerate.DataLoaderConfiguration(use_stateful_dataloader=True)

    def prepared(loader: oocload.Loader) -> Any:
        accelerator = accelerate.Accelerator(cpu=True, dataloader_config=settings)
        return accelerator.prepare(DataLoader(loader.to_torch(), batch_size=None))

    with open_loader(path) as loader:
        batches = prepared(loader)
        for _ in itertools.islice(batches, 10):
            pass
        state = batches.state_dict()
    with open_loader(path) as loader:
        batches = prepared(loader)
        batches.load_state_dict(state)
        assert [y.tolist() for _ in range(2) for _, y in batches] == order[10 : 2 * N_BATCHES]

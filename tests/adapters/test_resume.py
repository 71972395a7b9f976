"""A run that a framework feeds stops at any batch of the model's and resumes exactly there, however far it had read."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import oocload

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.framework

Make = Callable[..., Path]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small windows": {"shuffle": oocload.Shuffle(window_rows=100)},
    "streams": {"shuffle": oocload.Shuffle(window_rows=100, streams=4)},
    "weights": {"weights": "y"},
    "in order": {"shuffle": False},
}


def through_tf(loader: oocload.Loader, prefetch: int) -> Iterator[list[int]]:
    """Yield the rows of each batch, epoch after epoch, from a dataset that reads ahead."""
    while True:
        for _, y in loader.to_tf().prefetch(prefetch):
            yield y.numpy().tolist()


def through_keras(loader: oocload.Loader, prefetch: int) -> Iterator[list[int]]:
    """Yield the rows of each batch, asked for as Keras' queue does, so many ahead of the model."""
    dataset = loader.to_keras()
    waiting: list[list[int]] = []
    while True:
        for index in range(len(dataset)):
            waiting.append(dataset[index][1].tolist())
            if len(waiting) > prefetch:
                yield waiting.pop(0)
        dataset.on_epoch_end()


@pytest.mark.parametrize("prefetch", [10])
@pytest.mark.parametrize("through", [through_tf, through_keras])
@pytest.mark.parametrize("options", list(OPTIONS.values()), ids=list(OPTIONS))
def test_resume_where_the_model_is(
    make_store: Make, through: Callable[..., Iterator[list[int]]], options: dict[str, Any], prefetch: int
) -> None:
    path = make_store(1003, 13, compression="lzf")
    with oocload.Loader(path, 40, seed=0, **options) as loader:
        whole = [y.tolist() for _, y in itertools.islice(loader.forever(), 4 * len(loader))]
    n_batches = len(whole) // 4
    for stop in (0, 7, n_batches - 1, n_batches + 9):
        with oocload.Loader(path, 40, seed=0, **options) as loader:
            stream = through(loader, prefetch)
            head = list(itertools.islice(stream, stop))
            state = loader.state_dict(epoch=stop // n_batches, batch=stop % n_batches)
            del stream
        with oocload.Loader(path, 40, seed=0, **options) as again:
            again.load_state_dict(state)
            stream = through(again, prefetch)
            assert head + list(itertools.islice(stream, len(whole) - stop)) == whole
            del stream

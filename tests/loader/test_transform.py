"""The user's function on each batch: what it raises and returns, by each way to a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError, TransformError

Way = Callable[[Any], Any]
WAYS: dict[str, Way] = {
    "iteration": lambda source: list(source)[-1],
    "index": lambda source: [source[i] for i in range(len(source))][-1],
}


@pytest.fixture(params=["loader", "mix"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return a function transform → loader or mix of 100 rows in batches of 30, in order."""
    path = tmp_path / "t.h5"
    oocload.convert({"x": np.arange(200.0).reshape(100, 2), "y": np.arange(100)}, path)
    opened: list[Any] = []

    def make(transform: Any) -> Any:
        if request.param == "loader":
            opened.append(oocload.Loader(path, 30, shuffle=False, transform=transform))
        else:
            opened.append(oocload.mix([oocload.Loader(path, 30, shuffle=False)], by="batches", transform=transform))
        return opened[-1]

    yield make
    for source in opened:
        source.close()


@pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))
def test_what_it_returns_is_delivered(make: Any, way: Way) -> None:
    x, y = way(make(lambda batch: (batch[0] * 2, {"y": batch[1]})))
    assert x.tolist() == (np.arange(180.0, 200).reshape(10, 2) * 2).tolist()
    assert y["y"].tolist() == list(range(90, 100))


@pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))
def test_what_it_raises_passes_with_a_note(make: Any, way: Way) -> None:
    def transform(batch: Any) -> Any:
        if 65 in batch[1]:
            raise KeyError("mine")
        return batch

    with pytest.raises(KeyError, match="mine") as caught:
        way(make(transform))
    assert caught.value.__notes__ == [f"raised by transform {transform.__qualname__!r} at batch 2 of epoch 0"]


@pytest.mark.parametrize("way", list(WAYS.values()), ids=list(WAYS))
@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda batch: None, "transform '<lambda>' must return a batch, got None at batch 0 of epoch 0"),
        (
            lambda batch: (batch[0], batch[1][:-1]),
            "must keep the rows of a batch, and made 29 of 30 at batch 0 of epoch 0",
        ),
        (lambda batch: {"a": {"b": [batch[0][:4]]}}, "and made 4 of 30 at batch 0 of epoch 0"),
        (lambda batch: batch[0].T, "and made 2 of 30 at batch 0 of epoch 0"),
    ],
)
def test_what_it_may_not_return(make: Any, way: Way, transform: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        way(make(transform))


@pytest.mark.parametrize("way", [*WAYS.values(), lambda source: list(map(source.__getitem__, range(4)))])
def test_the_end_of_an_iterator_in_it_does_not_end_the_epoch(make: Any, way: Way) -> None:
    few = iter([1])

    def take(batch: Any) -> Any:
        next(few)
        return batch

    with pytest.raises(TransformError, match=r"'.*take' must return a batch, and raised StopIteration at batch 1 of"):
        way(make(take))


def test_numbers_beside_arrays_pass(make: Any) -> None:
    x, scale = next(iter(make(lambda batch: (batch[0], 0.5))))
    assert scale == 0.5

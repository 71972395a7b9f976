"""Chains of functions, and the random numbers that they are given: the same on every way to a batch."""

import functools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload
from oocload.errors import InvalidArgumentError
from oocload.loader.seeded import generator
from oocload.loader.transform import name_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "m.h5"
    oocload.convert({"x": np.arange(1000.0).reshape(500, 2), "y": np.arange(500)}, path)
    return path


def double(batch: Any) -> Any:
    return batch[0] * 2, batch[1]


def noise(batch: Any, rng: np.random.Generator) -> Any:
    return batch[0] + rng.random(batch[0].shape), batch[1]


def named(batch: Any, scale: float = 1.0, *, rng: np.random.Generator) -> Any:
    return batch[0] + scale * rng.random(batch[0].shape), batch[1]


def second(batch: Any, randomness: np.random.Generator) -> Any:
    return noise(batch, randomness)


class Shift:
    def __call__(self, batch: Any, rng: np.random.Generator) -> Any:
        return noise(batch, rng)


def taken(batches: Any) -> list[tuple[bytes, bytes]]:
    return [(x.tobytes(), y.tobytes()) for x, y in batches]


def test_the_random_numbers_are_those_they_always_were() -> None:
    rng = generator(seed=1, epoch=2, batch=3, rank=4, stage=5)
    assert rng.bit_generator.random_raw(2).tolist() == [7337553292502115786, 9206153122019598281]


def test_each_batch_epoch_rank_and_stage_has_its_own() -> None:
    keys = [(s, e, b, r, t) for s in (0, 1) for e in (0, 1) for b in (0, 1) for r in (0, 1) for t in (0, 1)]
    assert len({int(generator(*key).bit_generator.random_raw()) for key in keys}) == len(keys)


@pytest.mark.parametrize("function", [noise, named, second, Shift(), functools.partial(named, scale=1.0)])
def test_whoever_wants_a_generator_gets_it(path: Path, function: Any) -> None:
    with oocload.Loader(path, 30, seed=3, transform=function) as loader, oocload.Loader(path, 30, seed=3) as plain:
        for number, ((x, y), (x0, y0)) in enumerate(zip(loader, plain, strict=True)):
            assert y.tolist() == y0.tolist()
            assert np.array_equal(x, x0 + generator(3, 0, number, 0, 0).random(x0.shape))


def test_a_generator_that_was_bound_stays(path: Path) -> None:
    class Ones:
        def random(self, shape: Any) -> Any:
            return np.ones(shape)

    bound = functools.partial(named, rng=Ones())
    with oocload.Loader(path, 30, shuffle=False, transform=bound) as loader:
        assert loader[0][0][0].tolist() == [1, 2]


@pytest.mark.parametrize("function", [lambda: 0, lambda a, b, c: 0, lambda batch, *, scale: 0])
def test_what_cannot_be_called_so(path: Path, function: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"transform .*<lambda>' must take a batch, or a batch and rng"):
        oocload.Loader(path, 30, transform=function)


@pytest.mark.parametrize(
    ("function", "name"),
    [(double, "double"), (functools.partial(named, scale=2.0), "named"), (Shift(), "Shift"), (len, "len")],
)
def test_names(function: Any, name: str) -> None:
    assert name_of(function) == name


@pytest.mark.parametrize("workers", [None, 0])
def test_functions_are_applied_one_after_the_other(path: Path, workers: int | None) -> None:
    with oocload.Loader(path, 30, seed=1, transform_workers=workers) as plain:
        mapped = plain.map(double).map(noise)
        assert plain.transform is None
        assert mapped.transform is not None
        with mapped:
            for number, ((x, _), (x0, _)) in enumerate(zip(mapped, plain, strict=True)):
                assert np.array_equal(x, 2 * x0 + generator(1, 0, number, 0, 1).random(x0.shape))
        assert len(list(plain)) == len(plain)


def test_a_chain_is_that_of_parts_copies_and_pickles(path: Path) -> None:
    with oocload.Loader(path, 30, seed=1, transform=double) as loader, loader.map(noise) as mapped:
        expected = taken(mapped)
        whole = mapped.select(np.arange(500))
        part, _ = mapped.split(0.5, 0.5)
        again = pickle.loads(pickle.dumps(mapped))
        for other in (whole, again):
            with other:
                other.load_state_dict(other.state_dict(epoch=0, batch=0))
                assert taken(other) == expected
        with part:
            x, y = part[0]
            rows = np.stack([2 * y, 2 * y + 1], 1) * 2.0
            assert np.array_equal(x, rows + generator(1, 0, 0, 0, 1).random(x.shape))


def test_it_stands_where_the_other_does_and_goes_its_own_way(path: Path) -> None:
    with oocload.Loader(path, 30, seed=1) as loader:
        batches = iter(loader)
        for _ in range(4):
            next(batches)
        with loader.map(double) as mapped:
            assert mapped.state_dict() == loader.state_dict()
            list(mapped)
        assert loader.state_dict()["batch"] == 4
        assert len(list(batches)) == len(loader) - 4


def test_a_state_does_not_depend_on_transforms(path: Path) -> None:
    with oocload.Loader(path, 30, seed=1) as loader, loader.map(noise) as mapped:
        mapped.load_state_dict(loader.state_dict(epoch=2, batch=3))
        assert loader.state_dict(epoch=2, batch=3) == mapped.state_dict()


def test_the_seed_of_a_state_is_that_of_the_random_numbers(path: Path) -> None:
    with oocload.Loader(path, 30, transform=noise) as loader, oocload.Loader(path, 30, transform=noise) as other:
        other.load_state_dict(loader.state_dict())
        assert taken(loader) == taken(other)


def test_the_parent_may_be_forgotten_or_closed(path: Path) -> None:
    with oocload.Loader(path, 30, seed=1).map(double) as mapped:
        assert len(list(mapped)) == 17
    loader = oocload.Loader(path, 30, seed=1)
    with loader.map(double) as mapped:
        loader.close()
        assert len(list(mapped)) == 17


def test_what_is_no_function(path: Path) -> None:
    with oocload.Loader(path, 30) as loader:
        with pytest.raises(InvalidArgumentError, match="transform must be a function of one batch, got 3"):
            loader.map(3)


def test_the_failing_one_of_a_chain_is_named(path: Path) -> None:
    def shorter(batch: Any) -> Any:
        return batch[0][1:], batch[1]

    with oocload.Loader(path, 30, transform=double) as loader, loader.map(shorter).map(double) as mapped:
        with pytest.raises(InvalidArgumentError, match=r"transform '.*shorter' must keep .* at batch 0 of epoch 0"):
            next(iter(mapped))


def test_mixes_have_chains_too(path: Path) -> None:
    loaders = [oocload.Loader(path, 30, seed=s) for s in (0, 1)]
    with oocload.mix(loaders, seed=5) as plain:
        mapped = plain.map(double).map(noise)
        expected = [x.copy() for x, _ in plain]
        for number, (x, _) in enumerate(mapped):
            assert np.array_equal(x, 2 * expected[number] + generator(5, 0, number, 0, 1).random(x.shape))
        mapped.load_state_dict(mapped.state_dict(epoch=0, batch=7))
        assert np.array_equal(next(iter(mapped))[0], mapped.batch_at(0, 7)[0])
        again = pickle.loads(pickle.dumps(mapped))
        with again:
            assert np.array_equal(again.batch_at(0, 3)[0], mapped.batch_at(0, 3)[0])

"""What the loader says of its shuffle, before training and when asked."""

import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload


def write(path: Path, labels: np.ndarray, chunk_rows: int = 50) -> Path:
    with h5py.File(path, "w") as file:
        x = np.zeros((len(labels), 16), "f4")
        file.create_dataset("x", data=x, chunks=(chunk_rows, 16), compression="lzf")
        file.create_dataset("y", data=labels, chunks=(chunk_rows, *labels.shape[1:]), compression="lzf")
    return path


MANY = np.arange(50_000) // 100  # 500 classes in order
FEW = oocload.Shuffle(window_rows=500)


def test_labels_in_runs_are_warned_about_once_with_what_to_set(tmp_path: Path) -> None:
    path = write(tmp_path / "sorted.h5", MANY)
    with pytest.warns(oocload.ShuffleQualityWarning) as caught:
        loader = oocload.Loader(path, 256, seed=0, shuffle=FEW)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("equal labels of field 'y' lie in runs that the window cannot mix: a batch has 0.")
    window_rows = int(message.split("window_rows=")[1].split(")")[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with loader, oocload.Loader(path, 256, seed=0, shuffle=oocload.Shuffle(window_rows=window_rows)) as better:
            poor, good = loader.shuffle_quality(), better.shuffle_quality()
    assert poor.relative_label_entropy < 0.8 <= good.relative_label_entropy
    assert poor.label_run_rows == good.label_run_rows == 100
    assert poor.label_entropy < good.label_entropy
    assert f"runs of {100:,.1f} rows" in repr(poor)


@pytest.mark.parametrize("how", ["contiguous", "smallest ceiling"])
def test_labels_in_runs_where_nothing_is_dealt(tmp_path: Path, how: str) -> None:
    path, options = tmp_path / "raw.h5", {}
    if how == "contiguous":
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = np.zeros((50_000, 512), "f4"), MANY
        options = {"shuffle": oocload.Shuffle(window_rows=256)}
    else:
        write(path, MANY)
        with pytest.raises(oocload.MemoryCeilingError) as raised:
            oocload.Loader(path, 256, seed=0, memory=1000)
        options = {"memory": int(str(raised.value).split("at least ")[1].split(" bytes")[0])}
    with pytest.warns(oocload.ShuffleQualityWarning, match="equal labels of field 'y' lie in runs") as caught:
        loader = oocload.Loader(path, 256, seed=0, **options)
    with loader:
        assert len(caught) == 1
        assert not loader._runtime.options.dealt
        assert loader.shuffle_quality().relative_label_entropy < 0.5


@pytest.mark.parametrize(
    "case",
    ["mixed", "few classes", "numbers", "floats", "unshuffled", "default window", "column", "balanced", "no target"],
)
def test_nothing_to_warn_about(tmp_path: Path, case: str) -> None:
    rng = np.random.default_rng(0)
    labels = {
        "mixed": rng.permutation(MANY),
        "few classes": MANY // 100,
        "numbers": np.arange(50_000),
        "floats": MANY.astype("f4"),
        "column": rng.permutation(MANY).reshape(-1, 1),
    }.get(case, MANY)
    options = {
        "unshuffled": {"shuffle": False},
        "default window": {"shuffle": True},
        "balanced": {"balanced": "y", "batch_size": 500},
        "no target": {"x": "x"},
    }.get(case, {})
    path = write(tmp_path / "s.h5", labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with oocload.Loader(path, **{"batch_size": 256, "seed": 0, "shuffle": FEW, **options}) as loader:
            quality = loader.shuffle_quality()
    assert (quality.label_entropy is None) == (case in ("floats", "no target"))


def test_text_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", np.array([f"c{i}" for i in MANY], "S5"))
    with pytest.warns(oocload.ShuffleQualityWarning, match="equal labels of field 'y' lie in runs"):
        loader = oocload.Loader(path, 256, seed=0, shuffle=FEW)
    with loader:
        assert loader.shuffle_quality().label_run_rows == 100


def test_quality_is_that_of_the_epochs_batches(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", np.arange(20_000) % 7)
    with oocload.Loader(path, 100, seed=0) as loader:
        first = loader.shuffle_quality()
        assert first.relative_entropy >= 0.95 - 0.005
        assert first.batches == len(loader) == 200
        blocks = [len(np.unique(loader.batch_rows(i) // 50)) for i in range(200)]
        assert first.blocks_per_batch == pytest.approx(np.mean(blocks))
        list(map(len, loader))
        assert loader.epoch == 1
        assert loader.shuffle_quality() != first
        assert "batch entropy 0.95 of a uniform shuffle's" in repr(loader)
        assert loader.stats.decoded_bytes <= 1.01 * 20_000 * 72


def test_quality_of_parts_weights_and_balance(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", np.sort(np.random.default_rng(0).integers(0, 5, 20_000)))
    with oocload.Loader(path, 100, seed=0) as loader, loader.split(0.5, 0.5, by="rows")[0] as part:
        assert part.shuffle_quality().relative_entropy > 0.94
    with oocload.Loader(path, 100, seed=0, weights="y") as loader:
        assert loader.shuffle_quality().relative_entropy > 0.85
    with oocload.Loader(path, 100, seed=0, balanced="y") as loader:
        quality = loader.shuffle_quality()
        assert quality.label_entropy == pytest.approx(np.log(5))
        assert quality.relative_entropy > 0.7

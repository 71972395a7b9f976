"""Datasets of Hugging Face, read back with h5py."""

import io
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.fields import parse_fields
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError
from oocload.layout import Meaning
from oocload.sources import HuggingFaceSource, HuggingFaceStream
from tests.convert.sources.kinds import assert_rows, gather

datasets = pytest.importorskip("datasets")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.framework

N = 40
ROWS = np.arange(N * 6, dtype="int32").reshape(N, 2, 3)


def png(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (3 + i % 4, 3)).save(file, "PNG")
    return file.getvalue()


COLUMNS: dict[str, Any] = {
    "text": [f"näme {i}" for i in range(N)],
    "label": [i % 3 - 1 for i in range(N)],
    "tokens": [list(range(i % 4)) for i in range(N)],
    "fixed": [[i, i / 2, 0] for i in range(N)],
    "grid": ROWS.tolist(),
    "n": list(range(N)),
    "image": [{"bytes": png(i), "path": None} for i in range(N)],
}


def features() -> Any:
    return datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["neg", "pos"]),
            "tokens": datasets.List(datasets.Value("int16")),
            "fixed": datasets.List(datasets.Value("float32"), length=3),
            "grid": datasets.Array2D((2, 3), "int32"),
            "n": datasets.Value("int64"),
            "image": datasets.Image(),
        }
    )


def whole() -> Any:
    return datasets.Dataset.from_dict(COLUMNS, features=features())


def wanted(rows: list[int]) -> dict[str, list[Any]]:
    found = {
        "text": [np.frombuffer(t.encode(), np.uint8) for t in COLUMNS["text"]],
        "label": COLUMNS["label"],
        "tokens": COLUMNS["tokens"],
        "fixed": COLUMNS["fixed"],
        "grid": [*ROWS],
        "n": COLUMNS["n"],
        "image": [np.frombuffer(i["bytes"], np.uint8) for i in COLUMNS["image"]],
    }
    return {name: [values[i] for i in rows] for name, values in found.items()}


MEANINGS = {
    "text": Meaning(content="text"),
    "label": Meaning(vocabulary=("neg", "pos")),
    "image": Meaning(content="image"),
}


@pytest.mark.parametrize(("start", "stop"), [(0, None), (11, 30)])
@pytest.mark.parametrize("is_chosen", [False, True])
def test_a_dataset(start: int, stop: int | None, is_chosen: bool) -> None:
    rows = list(range(N))[::-2] if is_chosen else list(range(N))
    source = resolve(whole().select(rows) if is_chosen else whole(), None)
    specs = {"text": (None, "uint8"), "label": source.specs["label"], "tokens": (None, "int16")}  # type: ignore[index]
    specs |= {"fixed": ((3,), "float32"), "grid": ((2, 3), "int32"), "n": "int64", "image": (None, "uint8")}
    assert source.specs == parse_fields(specs)
    assert source.meanings == MEANINGS
    assert source.n_rows == len(rows)
    for piece_nbytes in (300, 2**20):
        got = gather(source.batches(piece_nbytes, start, stop, 2, 2))
        assert_rows(got, wanted(rows[start:stop]))


def test_a_stream() -> None:
    source = resolve(whole().to_iterable_dataset(), None)
    assert source.meanings == MEANINGS
    assert_rows(gather(source.batches(2000)), wanted(list(range(N))))


def test_splits(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": whole().select(range(30)), "test": whole().select(range(30, N))})
    report = oocload.convert(parts, tmp_path / "a.h5", fields=["n", "label", "split"], progress=False)
    assert report.n_rows == N
    store = oocload.open(tmp_path / "a.h5")
    names = store.field("split").meaning.vocabulary
    assert sorted(names) == ["test", "train"]
    assert store.field("label").meaning.vocabulary == ("neg", "pos")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["n"], range(N))
        np.testing.assert_array_equal(np.array(names)[file["split"][:]], ["train"] * 30 + ["test"] * 10)
    with oocload.Loader(tmp_path / "a.h5", 10, split="test", x="n", seed=0) as loader:
        assert sorted(np.concatenate(list(loader))) == list(range(30, N))


def test_options_of_tables(tmp_path: Path) -> None:
    source = HuggingFaceSource(whole(), label="label", columns=["n", "grid"])
    assert set(source.specs or ()) == {"n", "grid", "y"}
    assert source.meanings == {"y": Meaning(vocabulary=("neg", "pos"))}
    assert len(gather(source.batches(1000))["y"]) == N


def test_images_in_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(png(i))
    dataset = datasets.Dataset.from_dict({"image": list(map(str, paths))}).cast_column("image", datasets.Image())
    for found in (dataset, dataset.to_iterable_dataset()):
        assert [bytes(row) for row in gather(resolve(found, None).batches(1000))["image"]] == list(map(png, range(5)))
    paths[3].unlink()
    with pytest.raises(InvalidArgumentError, match=r"column 'image' .* must have images that are there, got '.*3.png'"):
        gather(resolve(dataset, None).batches(1000))


def test_errors() -> None:
    with pytest.raises(InvalidArgumentError, match="dataset must be a datasets.Dataset or DatasetDict, got list"):
        HuggingFaceSource([1])
    with pytest.raises(InvalidArgumentError, match="dataset must be a datasets.IterableDataset, got Dataset"):
        HuggingFaceStream(whole())
    inner = whole().add_column("split", list(range(N)))
    with pytest.raises(InvalidArgumentError, match="and no column of the name 'split'"):
        HuggingFaceSource(datasets.DatasetDict({"train": inner}))


def test_a_transform_is_not_left_out_silently() -> None:
    dataset = datasets.Dataset.from_dict({"x": [1, 2]}).with_transform(lambda rows: {"x": [-x for x in rows["x"]]})
    with pytest.raises(InvalidArgumentError, match=r"must have no transform, .*; use dataset.map\(\)"):
        HuggingFaceSource(dataset)

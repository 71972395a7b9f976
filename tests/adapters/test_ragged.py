"""Ragged and sparse rows in frameworks: their own kinds of tensors, and errors where shapes must be static."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import oocload
from oocload import Loader, Pad, Ragged
from tests.loader.ragged_stores import RaggedRows, padded, write_csr, write_ragged

N_ROWS = 700


@pytest.fixture(scope="module")
def rows() -> RaggedRows:
    return RaggedRows.of(np.random.default_rng(3).integers(0, 30, N_ROWS))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, rows: RaggedRows) -> Path:
    path = tmp_path_factory.mktemp("ragged") / "rows.h5"
    return write_ragged(path, {"x": rows, "y": np.arange(N_ROWS)})


@pytest.fixture(scope="module")
def matrix() -> Any:
    return sparse.random(N_ROWS, 20, 0.2, format="csr", random_state=0, dtype="float32")


@pytest.fixture(scope="module")
def matrix_store(tmp_path_factory: pytest.TempPathFactory, matrix: Any) -> Path:
    return write_csr(tmp_path_factory.mktemp("sparse") / "cells.h5ad", matrix, y=np.arange(N_ROWS))


def check(rows: RaggedRows, lists: list[list[int]], y: Any) -> None:
    assert lists == [row.tolist() for row in rows.rows(np.asarray(y))]


def test_tensorflow_has_ragged_tensors(store: Path, rows: RaggedRows) -> None:
    tf = pytest.importorskip("tensorflow")
    with Loader(store, 64, seed=0) as loader:
        dataset = loader.to_tf()
        assert isinstance(dataset.element_spec[0], tf.RaggedTensorSpec)
        for _ in range(2):
            seen = []
            for x, y in dataset:
                assert isinstance(x, tf.RaggedTensor)
                check(rows, x.to_list(), y)
                seen += y.numpy().tolist()
            assert sorted(seen) == list(range(N_ROWS))


def test_tensorflow_has_rows_padded_to_the_longest(store: Path, rows: RaggedRows) -> None:
    pytest.importorskip("tensorflow")
    with Loader(
        store, 64, seed=0, ragged=Pad(beside="mask"), transform=lambda b: ({**b[0], "n": b[1]}, b[1])
    ) as loader:
        dataset = loader.to_tf()
        assert dataset.element_spec[0]["x"].shape.as_list() == [None, None]
        assert dataset.element_spec[0]["n"].shape.as_list() == [None]
        widths = set()
        for x, y in dataset:
            widths.add(x["x"].shape[1])
            np.testing.assert_array_equal(x["x"], padded(rows.rows(y.numpy()), x["x"].shape[1], Pad(), "int32"))
            np.testing.assert_array_equal(x["x_mask"], x["x"].numpy() != 0)
        assert len(widths) > 1


def test_tensorflow_has_slabs_of_rows_padded_to_one_length(store: Path, rows: RaggedRows) -> None:
    pytest.importorskip("tensorflow")
    with Loader(store, 64, seed=0, ragged=Pad(9, beside="lengths")) as loader:
        assert loader.transform is None
        for x, y in loader.to_tf():
            np.testing.assert_array_equal(x["x"], padded(rows.rows(y.numpy()), 9, Pad(9), "int32"))
            np.testing.assert_array_equal(x["x_lengths"], [min(9, len(row)) for row in rows.rows(y.numpy())])


def test_tensorflow_has_sparse_tensors(matrix_store: Path, matrix: Any) -> None:
    tf = pytest.importorskip("tensorflow")
    with Loader(matrix_store, 64, x="X", y="y", seed=0, sparse=True) as loader:
        for x, y in loader.to_tf():
            np.testing.assert_array_equal(tf.sparse.to_dense(x), matrix[y.numpy()].toarray())


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("bucket", [False, True])
def test_torch_has_nested_tensors(store: Path, rows: RaggedRows, n_workers: int, bucket: bool) -> None:
    torch = pytest.importorskip("torch")
    with Loader(store, 64, seed=0, bucket_by_length=bucket) as loader:
        expected = [y.copy() for _, y in loader]
        loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 0})
        batches = torch.utils.data.DataLoader(loader.to_torch(), batch_size=None, num_workers=n_workers)
        for (x, y), order in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(y, order)
            assert x.is_nested
            assert x.layout == torch.jagged
            check(rows, [row.tolist() for row in x.unbind()], y)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_torch_packs_rows_with_lengths_beside_them(store: Path, rows: RaggedRows, n_workers: int) -> None:
    torch = pytest.importorskip("torch")
    full = RaggedRows(rows.values, rows.offsets)
    with Loader(store, 64, seed=0, ragged=Pad(beside="lengths")) as loader:
        for x, y in torch.utils.data.DataLoader(loader.to_torch(), batch_size=None, num_workers=n_workers):
            some = x["x_lengths"] > 0
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x["x"][some], x["x_lengths"][some], batch_first=True, enforce_sorted=False
            )
            back, lengths = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
            check(full, [row[:n].tolist() for row, n in zip(back, lengths, strict=True)], y[some])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_torch_has_sparse_tensors(matrix_store: Path, matrix: Any) -> None:
    torch = pytest.importorskip("torch")
    with Loader(matrix_store, 64, x="X", y="y", seed=0, sparse=True) as loader:
        for x, y in loader.to_torch():
            assert x.layout == torch.sparse_csr
            np.testing.assert_array_equal(x.to_dense(), matrix[y.numpy()].toarray())


def test_jax_has_padded_rows(store: Path, rows: RaggedRows) -> None:
    pytest.importorskip("jax")
    for pad in (Pad(7), Pad()):
        with Loader(store, 64, seed=0, ragged=pad) as loader:
            for x, y in loader.to_jax():
                expected = padded(rows.rows(np.asarray(y)), x.shape[1], pad, "int32")
                np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("form", ["to_jax", "to_keras"])
def test_rows_without_a_rule_are_refused_where_shapes_are_static(store: Path, matrix_store: Path, form: str) -> None:
    pytest.importorskip("tensorflow" if form == "to_keras" else "jax")
    match = rf"ragged must say how rows of field 'x' are padded for {form}\(\), whose shapes must be static; pass"
    with Loader(store, 64, seed=0) as loader, pytest.raises(oocload.InvalidArgumentError, match=match):
        getattr(loader, form)()
    if form == "to_keras":
        with Loader(store, 64, ragged=Pad()) as loader, pytest.raises(oocload.InvalidArgumentError, match=r"to_tf\(\)"):
            loader.to_keras()
    match = rf"sparse must be False for {form}\(\)"
    with (
        Loader(matrix_store, 64, x="X", sparse=True) as loader,
        pytest.raises(oocload.InvalidArgumentError, match=match),
    ):
        getattr(loader, form)()

    def dense(batch: Any) -> Any:
        return np.zeros((batch[0].n_rows, 3)), batch[1]

    with Loader(store, 64, seed=0, transform=dense) as loader:
        getattr(loader, form)()


def test_keras_trains_on_padded_rows(store: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.layers.Embedding(128, 4, mask_zero=True), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    with Loader(store, 64, seed=0, ragged=Pad(12)) as loader:
        model.fit(loader.to_keras(), epochs=2, verbose=0)
    with Loader(store, 64, seed=0, ragged=Pad(), bucket_by_length=True) as loader:
        if keras.backend.backend() == "tensorflow":
            with pytest.raises(oocload.InvalidArgumentError, match=r"ragged must say how .* for to_keras\(\)"):
                loader.to_keras()
            model.fit(loader.to_tf(), epochs=2, shuffle=False, verbose=0)


def test_processes_get_arrays(store: Path, rows: RaggedRows) -> None:
    def doubled(batch: Any) -> Any:
        x, y = batch
        return (Ragged(x.values * 2, x.offsets) if isinstance(x, Ragged) else x * 2), y

    for pad in (None, Pad(), Pad(5)):
        with Loader(store, 64, seed=0, ragged=pad, transform=doubled, transform_workers=1) as loader:
            for x, y in loader:
                if isinstance(x, Ragged):
                    np.testing.assert_array_equal(x.values, 2 * np.concatenate(rows.rows(y)))
                else:
                    np.testing.assert_array_equal(x, 2 * padded(rows.rows(y), x.shape[1], pad, "int32"))


def test_mixes_have_rows_of_one_length(store: Path) -> None:
    with Loader(store, 8, seed=0, ragged=Pad(4)) as first, Loader(store, 8, seed=1, ragged=Pad(4)) as second:
        mixed = oocload.mix([first, second])
        assert next(iter(mixed))[0].shape == (8, 4)
    with Loader(store, 8, seed=0) as first, Loader(store, 8, seed=1) as second:
        with pytest.raises(oocload.InvalidArgumentError, match=r"loader 0 must give rows of one length, .*Pad\(maxlen"):
            oocload.mix([first, second])

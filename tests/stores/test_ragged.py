"""Groups that are one field, written by hand with h5py and zarr as their formats say."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr

import oocload
from oocload.errors import InvalidArgumentError, UnknownFieldError
from oocload.stores.base import direct_path_enabled

N_ROWS = 50
LENGTHS = np.random.default_rng(0).integers(0, 9, N_ROWS)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
VALUES = np.arange(OFFSETS[-1] * 3, dtype="f4").reshape(-1, 3)
MATRIX = scipy.sparse.random(N_ROWS, 20, 0.2, "csr", dtype="f4", random_state=0)

RAGGED = {"oocload_encoding": "ragged", "oocload_encoding_version": 1}
CSR = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": [N_ROWS, 20]}
CSC = {**CSR, "encoding-type": "csc_matrix"}
OLD_CSR = {"h5sparse_format": "csr", "h5sparse_shape": [N_ROWS, 20]}

Groups = Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]
FORMATS = ["a.h5", "a2.zarr", "a3.zarr", "a3.zarr.zip"]


def ragged_arrays(**changes: Any) -> dict[str, Any]:
    return {"values": VALUES, "offsets": OFFSETS, **changes}


def csr_arrays(**changes: Any) -> dict[str, Any]:
    return {"data": MATRIX.data, "indices": MATRIX.indices, "indptr": MATRIX.indptr, **changes}


def write(path: Path, groups: Groups) -> Path:
    """Write group → (attributes, member → array), and a plain field ``y``; a member that is None is left out."""
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            _fill(file, groups, file.create_dataset)
        return path
    version: Any = 2 if path.stem == "a2" else 3
    if path.suffix == ".zip":
        folder = write(path.with_suffix(""), groups)  # in a zip file, attributes cannot be written twice
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(f for f in folder.rglob("*") if f.is_file()):
                archive.write(file, file.relative_to(folder))
        return path
    root = zarr.open_group(path, mode="w", zarr_format=version)
    _fill(root, groups, lambda name, data: root.create_array(name, data=data))
    return path


def _fill(root: Any, groups: Groups, create: Callable[..., Any]) -> None:
    for name, (attributes, arrays) in groups.items():
        group = root.require_group(name) if name else root
        group.attrs.update(attributes)
        for member, array in arrays.items():
            if array is not None:
                create(f"{name}/{member}".lstrip("/"), data=np.asarray(array))
    create("y", data=np.arange(N_ROWS))


BOTH: Groups = {"deep/tokens": (RAGGED, ragged_arrays()), "X": (CSR, csr_arrays())}


@pytest.mark.parametrize("name", FORMATS)
class TestFields:
    def test_a_group_is_one_field(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, BOTH)) as store:
            assert list(store.fields) == ["X", "deep/tokens", "y"]
            members = ["X/data", "X/indices", "X/indptr", "deep/tokens/offsets", "deep/tokens/values"]
            assert list(store.members) == members
            tokens, x = store.fields["deep/tokens"], store.fields["X"]
            assert (tokens.shape, tokens.dtype) == ((N_ROWS,), np.float32)
            assert (x.shape, x.dtype) == ((N_ROWS, 20), np.float32)
            assert tokens.ragged is not None
            assert (tokens.ragged.values, tokens.ragged.offsets) == (
                store.members[members[4]],
                store.members[members[3]],
            )
            assert (tokens.ragged.columns, tokens.ragged.n_columns) == (None, 0)
            assert x.ragged is not None
            assert (x.ragged.columns, x.ragged.n_columns) == (store.members["X/indices"], 20)

    def test_sizes_are_those_of_what_is_stored(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, BOTH)) as store:
            tokens, x = store.fields["deep/tokens"], store.fields["X"]
        assert tokens.nbytes == VALUES.nbytes + OFFSETS.nbytes
        assert tokens.row_nbytes == VALUES.nbytes // N_ROWS
        assert x.nbytes == sum(a.nbytes for a in csr_arrays().values())
        assert x.row_nbytes == (MATRIX.data.nbytes + MATRIX.indices.nbytes) // N_ROWS

    def test_members_are_read_by_name(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, BOTH)) as store:
            field = store.field("deep/tokens/values")
            assert field.shape == VALUES.shape
            assert np.array_equal(store.read_rows("deep/tokens/values", 3, 9), VALUES[3:9])
            assert np.array_equal(store.read_rows("X/indptr", 0, N_ROWS + 1), MATRIX.indptr)
            if field.read_path == "direct":
                assert store.locate("deep/tokens/values").find(0) is not None
            with pytest.raises(
                InvalidArgumentError, match="field 'X' of .* must be one array, and is ragged; read 'X/"
            ):
                store.read_rows("X", 0, 1)
            with pytest.raises(UnknownFieldError, match="which has 'X', 'deep/tokens', 'y'"):
                store.field("values")

    def test_read_path_is_that_of_the_members(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, BOTH)) as store:
            for field in store.fields.values():
                assert field.read_path == "direct" or not direct_path_enabled()

    def test_the_group_itself_as_the_store(self, tmp_path: Path, name: str) -> None:
        path = write(tmp_path / name, BOTH)
        with oocload.open(f"{path}::deep/tokens") as store:
            assert (list(store.fields), list(store.members)) == (["x"], ["offsets", "values"])
            assert store.fields["x"].shape == (N_ROWS,)
            assert np.array_equal(store.read_rows("values", 0, 5), VALUES[:5])

    def test_shown(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, BOTH)) as store:
            shown = repr(store)
        assert f"{N_ROWS} × ragged × 3, {len(VALUES) / N_ROWS:.1f} a row  float32" in shown
        assert f"{N_ROWS} × 20 sparse, {MATRIX.nnz / N_ROWS:.1f} a row" in shown
        assert "offsets" not in shown

    def test_pickles(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, BOTH)) as store, pickle.loads(pickle.dumps(store)) as copy:
            assert (copy.fields, copy.members) == (store.fields, store.members)

    def test_older_attributes(self, tmp_path: Path, name: str) -> None:
        with oocload.open(write(tmp_path / name, {"X": (OLD_CSR, csr_arrays())})) as store:
            assert store.fields["X"].shape == (N_ROWS, 20)
            assert store.fields["X"].ragged is not None

    @pytest.mark.parametrize("attributes", [{}, {"encoding-type": "dataframe"}, {"oocload_encoding": 3}])
    def test_groups_that_do_not_say_so_stay_as_they_are(
        self, tmp_path: Path, name: str, attributes: dict[str, Any]
    ) -> None:
        with oocload.open(write(tmp_path / name, {"tokens": (attributes, ragged_arrays())})) as store:
            assert list(store.fields) == ["tokens/offsets", "tokens/values", "y"]
            assert not store.members

    def test_what_else_is_in_the_group_stays_a_field(self, tmp_path: Path, name: str) -> None:
        groups = {"tokens": (RAGGED, ragged_arrays(more=np.zeros(4)))}
        with oocload.open(write(tmp_path / name, groups)) as store:
            assert list(store.fields) == ["tokens", "tokens/more", "y"]


DAMAGED = [
    (RAGGED, ragged_arrays(offsets=None), "it has no array 'offsets'"),
    (RAGGED, ragged_arrays(values=None), "it has no array 'values'"),
    (
        RAGGED,
        ragged_arrays(offsets=np.zeros(0, "i8")),
        "its offsets must have an item more than there are rows, got none",
    ),
    (RAGGED, ragged_arrays(offsets=OFFSETS * 1.0), "its offsets must be whole numbers in one dimension, got float64"),
    (RAGGED, ragged_arrays(offsets=OFFSETS[None]), r"got int64 of shape \(1, 51\)"),
    (RAGGED, ragged_arrays(values=np.float32(3)), r"its values must be items .* an array, got float32 of shape \(\)"),
    ({**RAGGED, "oocload_encoding_version": 2}, ragged_arrays(), "its encoding has version 2, and known is 1; update"),
    ({"oocload_encoding": "ragged"}, ragged_arrays(), "its encoding has version 0"),
    (CSR, csr_arrays(indices=MATRIX.indices[1:]), "its indices must be as many as its data"),
    (CSR, csr_arrays(indices=MATRIX.indices * 1.0), "its indices must be whole numbers in one dimension, got float64"),
    (CSR, csr_arrays(data=MATRIX.data[:, None]), "its data must be items of a fixed size, in one dimension"),
    (CSR, csr_arrays(indptr=MATRIX.indptr[1:]), "its attribute 'shape' says 50 rows, and its indptr 49"),
    ({**CSR, "shape": [3]}, csr_arrays(), r"its attribute 'shape' must be \(rows, columns\)"),
    ({**CSR, "shape": "many"}, csr_arrays(), r"its attribute 'shape' must be \(rows, columns\)"),
    ({**CSR, "shape": [N_ROWS, -1]}, csr_arrays(), r"its attribute 'shape' must be \(rows, columns\)"),
    ({"encoding-type": "csr_matrix"}, csr_arrays(), r"its attribute 'shape' must be \(rows, columns\)"),
    (CSC, csr_arrays(), r"by columns \(CSC\) cannot be read by rows; convert it to CSR"),
]


@pytest.mark.parametrize("name", ["a.h5", "a2.zarr", "a3.zarr"])
@pytest.mark.parametrize(("attributes", "arrays", "reason"), DAMAGED)
def test_damage_makes_one_field_unreadable(
    tmp_path: Path, name: str, attributes: dict[str, Any], arrays: dict[str, Any], reason: str
) -> None:
    with oocload.open(write(tmp_path / name, {"g": (attributes, arrays)})) as store:
        assert list(store.fields) == ["g", "y"]
        assert (store.fields["g"].read_path, store.fields["g"].ragged) == ("none", None)
        with pytest.raises(AssertionError, match=reason):
            raise AssertionError(store.fields["g"].reason)
        assert set(store.members) == {f"g/{n}" for n, a in arrays.items() if a is not None}


def test_bytes_as_attributes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"X": ({**CSR, "encoding-type": np.bytes_(b"csr_matrix")}, csr_arrays())})
    with oocload.open(path) as store:
        assert store.fields["X"].ragged is not None


def test_items_that_are_objects(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"g": (RAGGED, {"offsets": np.array([0, 1, 2])})})
    with h5py.File(path, "a") as file:
        file.create_dataset("g/values", data=["a", "b"], dtype=h5py.string_dtype())
    with oocload.open(path) as store:
        assert store.fields["g"].reason.startswith("its values must be items of a fixed size, an array, got object")


@pytest.mark.direct
def test_the_worst_member_decides(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", {"g": (RAGGED, ragged_arrays(values=None))})
    with h5py.File(path, "a") as file:
        file.create_dataset("g/values", data=VALUES, chunks=(8, 3), scaleoffset=3)
    with oocload.open(path) as store:
        field = store.fields["g"]
        assert (field.read_path, field.reason) == ("h5py", "codec scaleoffset, in g/values")


def test_beside_an_array_that_zarr_cannot_open(tmp_path: Path) -> None:
    for name in ("a2.zarr", "a3.zarr"):
        path = write(tmp_path / name, BOTH)
        file = path / "y" / ("zarr.json" if name == "a3.zarr" else ".zarray")
        metadata = json.loads(file.read_text())
        metadata["data_type" if name == "a3.zarr" else "dtype"] = "nonsense"
        file.write_text(json.dumps(metadata))
        with oocload.open(path) as store:
            assert {n: f.ragged is not None for n, f in store.fields.items()} == {
                "X": True,
                "deep/tokens": True,
                "y": False,
            }
            assert store.fields["X"].shape == (N_ROWS, 20)
        with oocload.open(f"{path}::X") as store:
            assert list(store.fields) == ["x"]


def test_consolidated_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a2.zarr", BOTH)
    zarr.consolidate_metadata(path)
    with oocload.open(path) as store:
        assert list(store.fields) == ["X", "deep/tokens", "y"]


def test_fingerprints_tell_numbers_of_items_apart(tmp_path: Path) -> None:
    fewer = {"deep/tokens": (RAGGED, ragged_arrays(values=VALUES[:-1]))}
    stores = [oocload.open(write(tmp_path / n, BOTH)) for n in ("a.h5", "a3.zarr")]
    stores.append(oocload.open(write(tmp_path / "b.h5", fewer)))
    same, also, other = (s.fingerprint(("deep/tokens", "y")) for s in stores)
    assert same == also != other
    for store in stores:
        store.close()


class TestJoined:
    def test_rows_follow_each_other(self, tmp_path: Path) -> None:
        paths = [write(tmp_path / name, BOTH) for name in ("a.h5", "a2.zarr")]
        with oocload.open(paths) as store:
            assert list(store.fields) == ["X", "deep/tokens", "y"]
            tokens, x = store.fields["deep/tokens"], store.fields["X"]
            assert (tokens.shape, x.shape) == ((2 * N_ROWS,), (2 * N_ROWS, 20))
            assert tokens.ragged is not None
            assert tokens.ragged.values.shape == (2 * len(VALUES), 3)
            assert tokens.ragged.offsets.shape == (2 * N_ROWS + 1,)
            assert x.ragged is not None
            assert x.ragged.columns is not None
            assert (x.ragged.columns.shape, x.ragged.n_columns) == ((2 * MATRIX.nnz,), 20)
            assert [(p.start, p.stop, p.source_start) for p in store.parts("X")] == [(0, 50, 0), (50, 100, 0)]
            assert all(p.field.ragged is not None for p in store.parts("X"))
            assert [(s.start, s.stop) for s in x.segments] == [(0, 50), (50, 100)]
            assert "100 × 20 sparse" in repr(store)

    @pytest.mark.parametrize(
        ("attributes", "arrays", "problem"),
        [
            (RAGGED, ragged_arrays(values=VALUES[:, :2]), r"its items have shape \(2,\), in the first \(3,\)"),
            (RAGGED, ragged_arrays(values=VALUES.astype("f8")), "its dtype is float64, in the first float32"),
            (RAGGED, ragged_arrays(values=None), "it cannot be read: it has no array 'values'"),
            (CSR, csr_arrays(), r"its rows have shape \(20,\), in the first \(\)"),
        ],
    )
    def test_what_does_not_fit_is_unreadable(
        self, tmp_path: Path, attributes: dict[str, Any], arrays: dict[str, Any], problem: str
    ) -> None:
        first = write(tmp_path / "a.h5", {"g": (RAGGED, ragged_arrays())})
        second = write(tmp_path / "b.h5", {"g": (attributes, arrays)})
        with oocload.open([first, second]) as store:
            with pytest.raises(AssertionError, match=problem):
                raise AssertionError(store.fields["g"].reason)

    def test_ragged_and_dense(self, tmp_path: Path) -> None:
        first = write(tmp_path / "a.h5", {"g": (RAGGED, ragged_arrays())})
        second = write(tmp_path / "b.h5", {})
        with h5py.File(second, "a") as file:
            file["g"] = np.zeros(N_ROWS, "f4")
        for order, rows in (
            ([first, second], "dense, in the first ragged"),
            ([second, first], "ragged, in the first d"),
        ):
            with oocload.open(order) as store:
                assert rows in store.fields["g"].reason

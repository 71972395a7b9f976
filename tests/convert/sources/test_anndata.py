"""AnnData: files and folders by anndata itself, objects, and files as older versions wrote them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.sparse

import oocload
from oocload.convert.fields import parse_fields
from oocload.convert.ragged import CsrSpec
from oocload.convert.sources.anndata import AnnDataSource
from oocload.convert.sources.resolve import resolve
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError, UnknownFieldError
from oocload.layout import Meaning
from tests.convert.sources.kinds import gather

N, M = 60, 40
RNG = np.random.default_rng(0)
X = scipy.sparse.random(N, M, 0.2, "csr", np.float32, RNG)
KINDS = RNG.choice(["B", "NK", "T"], N)
TEXT = Meaning(content="text")


@pytest.fixture
def adata() -> Any:
    anndata, pd = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(KINDS),
            "batch": pd.Categorical([None if i % 4 == 0 else i % 3 for i in range(N)]),
            "n": np.arange(N),
            "part": np.linspace(0, 1, N, dtype="float32"),
            "ok": np.arange(N) % 2 == 0,
            "name": [f"ñ{i}" for i in range(N)],
            "whole": pd.array([None if i % 5 == 0 else i for i in range(N)], dtype="Int64"),
            "flag": pd.array([None if i % 5 == 0 else i % 2 == 1 for i in range(N)], dtype="boolean"),
        },
        index=[f"cell {i}" for i in range(N)],
    )
    found = anndata.AnnData(X.copy(), obs=obs, var=pd.DataFrame({"g": np.arange(M)}, index=[f"g{i}" for i in range(M)]))
    found.layers["counts"], found.layers["dense"] = X * 2, X.toarray()
    found.obsm["pca"] = np.arange(3 * N, dtype="float64").reshape(N, 3)
    found.obsm["frame"] = pd.DataFrame({"u": np.arange(N), "v": found.obs["kind"]}, index=obs.index)
    found.obsp["near"], found.uns["note"] = scipy.sparse.eye(N, format="csr"), "x"
    return found


def in_file(adata: Any, folder: Path) -> Any:
    adata.write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


def in_zarr(adata: Any, folder: Path) -> Any:
    adata.write_zarr(folder / "a.anndata.zarr")
    return folder / "a.anndata.zarr"


def in_memory(adata: Any, folder: Path) -> Any:
    return adata


def backed(adata: Any, folder: Path) -> Any:
    import anndata

    return anndata.read_h5ad(in_file(adata, folder), backed="r")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("place", [in_file, in_zarr, in_memory, backed])
def test_all_fields(tmp_path: Path, adata: Any, place: Callable[[Any, Path], Any]) -> None:
    source = place(adata, tmp_path)
    rows = resolve(source, None)
    assert rows.specs == {
        "X": CsrSpec(np.dtype("float32"), M),
        "layers/counts": CsrSpec(np.dtype("float32"), M),
        **parse_fields(
            {
                "layers/dense": ((M,), "float32"),
                "obsm/pca": ((3,), "float64"),
                "obsm/frame/u": "int64",
                "obsm/frame/v": "int8",
                "obs/kind": "int8",
                "obs/batch": "int8",
                "obs/n": "int64",
                "obs/part": "float32",
                "obs/ok": "bool",
                "obs/name": (None, "uint8"),
                "obs/whole": "float64",
                "obs/flag": "int8",
                "id": (None, "uint8"),
            }
        ),
    }
    kinds = Meaning(vocabulary=("B", "NK", "T"))
    assert rows.meanings == {
        "obs/kind": kinds,
        "obsm/frame/v": kinds,
        "obs/batch": Meaning(vocabulary=("0", "1", "2")),
        "obs/flag": Meaning(vocabulary=("False", "True")),
        "obs/name": TEXT,
        "id": TEXT,
    }
    oocload.convert(source, tmp_path / "out.h5", progress=False)
    with h5py.File(tmp_path / "out.h5") as file:
        found = scipy.sparse.csr_matrix(
            tuple(file[f"layers/counts/{part}"][:] for part in ("data", "indices", "indptr"))
        )
        np.testing.assert_array_equal(found.toarray(), 2 * X.toarray())
        np.testing.assert_array_equal(file["layers/dense"], X.toarray())
        np.testing.assert_array_equal(file["obsm/pca"], adata.obsm["pca"])
        np.testing.assert_array_equal(np.array(["B", "NK", "T"])[file["obs/kind"][:]], KINDS)
        np.testing.assert_array_equal(file["obs/batch"], [-1 if i % 4 == 0 else i % 3 for i in range(N)])
        np.testing.assert_array_equal(file["obs/whole"], [np.nan if i % 5 == 0 else i for i in range(N)])
        np.testing.assert_array_equal(file["obs/flag"], [-1 if i % 5 == 0 else i % 2 for i in range(N)])
        assert file["obs/name/values"][:].tobytes().decode() == "".join(f"ñ{i}" for i in range(N))
        assert file["id/values"][:].tobytes().decode() == "".join(f"cell {i}" for i in range(N))
    got = gather(rows.batches(700, 7, 31, 2, 2))
    np.testing.assert_array_equal(got["layers/dense"], X.toarray()[7:31])
    np.testing.assert_array_equal(got["obs/ok"], np.arange(7, 31) % 2 == 0)


def older_file(path: Path, kind: str = "csr", categories: tuple[str, ...] = ("B", "NK", "T")) -> Path:
    """Write a file as anndata 0.7 did: categories apart from the column."""
    with h5py.File(path, "w") as file:
        matrix = X if kind == "csr" else X.tocsc()
        group = file.create_group("X")
        group.attrs.update({"encoding-type": f"{kind}_matrix", "shape": matrix.shape})
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        obs = file.create_group("obs")
        obs.attrs["_index"] = "name"
        obs.attrs["column-order"] = np.array(["kind"], h5py.string_dtype())
        obs.create_dataset("name", data=[f"c{i}" for i in range(N)], dtype=h5py.string_dtype())
        obs["kind"] = np.arange(N, dtype="int8") % 3
        obs.create_dataset("__categories/kind", data=categories, dtype=h5py.string_dtype())
        file["var/g"] = np.arange(M)
    return path


def test_an_older_file(tmp_path: Path) -> None:
    rows = resolve(older_file(tmp_path / "a.h5ad"), None)
    assert rows.meanings == {"obs/kind": Meaning(vocabulary=("B", "NK", "T")), "id": TEXT}
    got = gather(rows.batches(1000))
    np.testing.assert_array_equal(got["X"], X.toarray())
    assert got.keys() == {"X", "obs/kind", "id"}


def test_several_files(tmp_path: Path) -> None:
    """Categories differ from file to file, and there are missing ones."""
    vocabularies = [("B", "NK", "T"), ("T", "B", "Mono"), ("B", "NK", "T")]
    paths = [older_file(tmp_path / f"{i}.h5ad", "csr", v) for i, v in enumerate(vocabularies)]
    with h5py.File(paths[1], "a") as file:
        file["obs/kind"][3] = -1
        file["obs/more"] = np.arange(N)
    rows = resolve(paths, None)
    every = ("B", "NK", "T", "Mono")
    assert rows.meanings["obs/kind"] == Meaning(vocabulary=every)
    assert list(rows.specs or ()) == ["X", "obs/kind", "id"]
    wanted = [None if (f, i) == (1, 3) else v[i % 3] for f, v in enumerate(vocabularies) for i in range(N)]
    for start, stop in ((0, None), (50, 130), (61, 70)):
        got = gather(rows.batches(300, start, stop, 2, 2))
        assert [every[code] if code >= 0 else None for code in got["obs/kind"]] == wanted[start:stop]
    same = resolve([paths[0], paths[2]], None)
    assert same.meanings["obs/kind"] == Meaning(vocabulary=vocabularies[0])
    np.testing.assert_array_equal(gather(same.batches(1000))["X"], np.vstack([X.toarray()] * 2))


def test_a_part_of_a_file(tmp_path: Path) -> None:
    """A path with a name after it is one array, as of any other file."""
    rows = resolve(f"{older_file(tmp_path / 'a.h5ad')}::X", None)
    assert list(rows.specs or ()) == ["X"]


def test_by_columns(tmp_path: Path) -> None:
    path = older_file(tmp_path / "a.h5ad", "csc")
    with pytest.raises(StoreFormatError, match=r"field 'X' of .*a.h5ad cannot be read: .*by columns \(CSC\)"):
        oocload.convert(path, tmp_path / "a.h5", progress=False)
    assert oocload.convert(path, tmp_path / "a.h5", fields=["obs/kind"], progress=False).n_rows == N


def test_errors(tmp_path: Path) -> None:
    path = older_file(tmp_path / "a.h5ad")
    with pytest.raises(
        UnknownFieldError, match="'obs/nope' must be one of those in .*a.h5ad, which has X, obs/kind, id"
    ):
        oocload.convert(path, tmp_path / "a.h5", fields=["obs/nope"], progress=False)
    with pytest.raises(StoreNotFoundError, match="nothing lies at that path"):
        AnnDataSource(tmp_path / "c.h5ad")
    with pytest.raises(InvalidArgumentError, match=r"a path or an anndata.AnnData, got int"):
        AnnDataSource(5)
    with h5py.File(path, "a") as file:
        del file["obs/kind"]
    with pytest.raises(StoreFormatError, match="obs must have the column 'kind', which is missing"):
        resolve(path, None)
    with h5py.File(path, "a") as file:
        del file["obs"]
    with pytest.raises(StoreFormatError, match="must be an AnnData file, and has no group 'obs'"):
        resolve(path, None)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")
def test_objects_that_are_refused(tmp_path: Path, adata: Any) -> None:
    part = backed(adata, tmp_path)[:10]
    with pytest.raises(InvalidArgumentError, match=r"a part of one that is backed by a file; call its to_memory\(\)"):
        resolve(part, None)
    adata.X = adata.X.tocsc()
    with pytest.raises(InvalidArgumentError, match=r"field 'X' must be .* CSR format, got csc; call .tocsr\(\)"):
        resolve(adata, None)


def test_lone_sparse_matrices() -> None:
    assert resolve(X, None).specs == {"x": CsrSpec(np.dtype("float32"), M)}
    for matrix in (X.tocsc(), X.tocoo()):
        with pytest.raises(InvalidArgumentError, match=r"CSR format, got (coo|csc); call .tocsr\(\)"):
            resolve(matrix, None)

"""Ragged rows for tests, and what h5py and zarr themselves read of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.sparse
import zarr
from hypothesis import strategies as st

DTYPES = ["u1", "i2", "i4", "f4", "f8", "?"]


def random_rows(lengths: list[int], dtype: str = "i4", item_shape: tuple[int, ...] = (), seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [(rng.random((n, *item_shape)) * 200).astype(dtype) for n in lengths]


@st.composite
def ragged_rows(draw: st.DrawFn) -> list[Any]:
    """Rows of equal or of unlike lengths, some empty, perhaps one that is longer than several chunks."""
    lengths = draw(
        st.one_of(
            st.lists(st.integers(0, 30), min_size=1, max_size=60),
            st.builds(lambda n, k: [n] * k, st.integers(0, 9), st.integers(1, 60)),
        )
    )
    if draw(st.booleans()):
        lengths[draw(st.integers(0, len(lengths) - 1))] = 3000
    item_shape = draw(st.sampled_from([(), (3,), (2, 2)]))
    return random_rows(lengths, draw(st.sampled_from(DTYPES)), item_shape, draw(st.integers(0, 9)))


def open_group(path: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return array → all of it, and the attributes of a group."""
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            group = file[name]
            attributes = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in group.attrs.items()}
            return {n: a[()] for n, a in group.items()}, attributes
    found: Any = zarr.open_group(path, mode="r")[name]
    return {n: np.asarray(a[...]) for n, a in found.arrays()}, dict(found.attrs)


def rows_of(path: Path, name: str) -> list[np.ndarray]:
    """Return the rows of a ragged field, after looking at all that the format says of it."""
    arrays, attributes = open_group(path, name)
    assert attributes == {"oocload_encoding": "ragged", "oocload_encoding_version": 1}
    assert arrays.keys() == {"values", "offsets"}
    values, offsets = arrays["values"], arrays["offsets"]
    assert (offsets.dtype, offsets.ndim) == (np.int64, 1)
    assert (offsets[0], offsets[-1]) == (0, len(values))
    return [values[a:b] for a, b in itertools.pairwise(offsets)]


def matrix_of(path: Path, name: str) -> scipy.sparse.csr_matrix:
    """Return a CSR field, as anndata's on-disk format says it must be."""
    arrays, attributes = open_group(path, name)
    assert (attributes["encoding-type"], attributes["encoding-version"]) == ("csr_matrix", "0.1.0")
    assert arrays.keys() == {"data", "indices", "indptr"}
    matrix = scipy.sparse.csr_matrix(
        (arrays["data"], arrays["indices"], arrays["indptr"]), shape=tuple(attributes["shape"])
    )
    matrix.check_format(full_check=True)
    return matrix


def assert_same_rows(got: list[Any], expected: list[Any], dtype: Any = None) -> None:
    assert len(got) == len(expected)
    for here, there in zip(got, expected, strict=True):
        assert here.dtype == (there.dtype if dtype is None else dtype)
        np.testing.assert_array_equal(here, there)


def assert_same_matrix(got: Any, expected: Any) -> None:
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(got, part), getattr(expected, part))

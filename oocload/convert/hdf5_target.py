"""A new HDF5 file: chunks are written as they were encoded, by one thread; a kill leads back to the last commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from oocload.convert.arrays import NewArray
from oocload.convert.crashsafe import CrashSafeFile
from oocload.convert.encode import Encoding, encoder_for, hdf5_filters
from oocload.convert.encoders import Encoded
from oocload.stores.checksums import ArrayChecksums, write_checksums_hdf5, write_list
from oocload.stores.ragged import columns_of


class Hdf5Target:
    """Writes an HDF5 file that any stock h5py opens, unless a codec was asked for that it has not.

    Parameters
    ----------
    path
        The file; if it exists, it is gone on with.
    redo
        Log of its commits.
    arrays
        Name → what it is.
    encoding
        Of every array.

    """

    def __init__(self, path: Path, redo: Path, arrays: Mapping[str, NewArray], encoding: Encoding) -> None:
        exists = path.exists()
        self._arrays = arrays
        self._encoding = encoding
        self._ragged: dict[str, int] = {}
        self._encoders = {
            name: encoder_for("hdf5", encoding, array.spec.dtype, array.chunk_shape) for name, array in arrays.items()
        }
        self._raw = CrashSafeFile(path, redo)
        try:
            self._file = h5py.File(self._raw, "r+" if exists else "w")
            self._datasets = {
                name: self._file[name] if exists else self._create(name, array) for name, array in arrays.items()
            }
        except BaseException:
            self.close()
            raise

    def encode(self, array: str, chunk: int, rows: NDArray[Any]) -> Encoded:
        """Encode the rows of a whole chunk."""
        return self._encoders[array](rows)

    def put(self, array: str, chunk: int, encoded: Encoded, n_rows: int) -> None:
        """Write a chunk, of which some rows count."""
        dataset, new = self._datasets[array], self._arrays[array]
        start = chunk * new.height
        if len(dataset) < start + n_rows:  # no more: where rows of a chunk are cut off, HDF5 encodes it anew
            dataset.resize(start + n_rows, axis=0)
        corner = (start, *(0 for _ in new.spec.row_shape))
        dataset.id.write_direct_chunk(corner, encoded.data, filter_mask=encoded.skipped)
        self._raw.check()

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._file.flush()
        self._raw.check()

    def commit(self, note: bytes) -> None:
        """Make what was flushed the state to which a kill leads back."""
        self._raw.commit(note)

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Give the datasets their length, and say what groups are."""
        self._ragged = columns_of(attributes)
        for name, dataset in self._datasets.items():
            dataset.resize(lengths[name], axis=0)
        for named, said in attributes.items():
            self._file[named].attrs.update(said)
        self._raw.check()

    def prove(self, checksums: Mapping[str, ArrayChecksums]) -> None:
        """Write the checksums, and close the file; the next commit makes it last."""
        for name, known in checksums.items():
            write_checksums_hdf5(self._datasets[name], known)
        write_list(self._file.attrs, checksums, self._ragged)
        self._file.close()
        self._raw.check()

    def close(self) -> None:
        """Close; what was not committed is lost."""
        self._raw.abandon()
        if hasattr(self, "_file"):
            self._file.close()
        self._raw.close()

    def _create(self, name: str, array: NewArray) -> h5py.Dataset:
        return self._file.create_dataset(
            name,
            shape=(0, *array.spec.row_shape),
            maxshape=(None, *array.spec.row_shape),
            dtype=array.spec.dtype,
            **hdf5_filters(self._encoding, array.spec.dtype, array.chunk_shape),
        )

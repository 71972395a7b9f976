import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

import oocload
from oocload.convert.hdf5_target import Hdf5Target


def test_what_is_interrupted_is_done_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by Ctrl-C while HDF5 writes: the main thread goes, the chunk is written, and the next run goes on."""
    real, main = Hdf5Target.put, threading.main_thread()
    threads, written = set(), []

    def put(self: Hdf5Target, array: str, chunk: int, *rest: object) -> None:
        threads.add(threading.current_thread())
        real(self, array, chunk, *rest)  # type: ignore[arg-type]
        written.append(chunk)
        if chunk == 5:
            raise KeyboardInterrupt  # what the waiting thread gets

    monkeypatch.setattr(Hdf5Target, "put", put)
    rows = np.arange(10_000).reshape(-1, 10)
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        oocload.create(tmp_path / "t.h5", {"x": ((10,), "i8")}, chunk_rows=100) as writer,
    ):
        for start in range(0, 1000, 100):
            writer.append(x=rows[start : start + 100])
    assert threads
    assert main not in threads
    assert caught.value.__notes__[0].startswith("500 rows are kept")
    monkeypatch.undo()
    with oocload.create(tmp_path / "t.h5", chunk_rows=100, resume=True) as writer:
        assert writer.n_rows == 500
        writer.append(x=rows[500:])
    with h5py.File(tmp_path / "t.h5") as file:
        assert np.array_equal(file["x"][:], rows)
    assert oocload.verify(tmp_path / "t.h5").ok

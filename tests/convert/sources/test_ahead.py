"""Read-ahead is bounded, in order, tells errors where they belong, and leaves no thread."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from oocload.chunks.decoded import ChunkReader
from oocload.chunks.scratch import Scratch
from oocload.convert.sources import store as store_module
from oocload.convert.sources.ahead import Pieces, ReadAhead
from oocload.convert.sources.resolve import resolve
from oocload.errors import ChunkError, StoreFormatError
from tests.conftest import our_threads
from tests.convert.sources.kinds import N_ROWS, X, assert_rows, gather, hdf5, idx

NONE = np.empty(0, "i8")


class Counting:
    """Reads rows that are their own numbers, and counts the pieces that are begun and not given."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.begun: list[int] = []
        self.fails_at = fails_at
        self.lock = threading.Lock()
        self.threads: set[str] = set()

    def __call__(self, start: int, stop: int, scratch: Scratch) -> np.ndarray:
        with self.lock:
            self.begun.append(start)
            self.threads.add(threading.current_thread().name)
        if self.fails_at is not None and start <= self.fails_at < stop:
            raise ChunkError(f"row {self.fails_at} is damaged")
        return np.arange(start, stop)


def ranges(n_rows: int, step: int) -> Iterator[tuple[int, int]]:
    return ((i, min(n_rows, i + step)) for i in range(0, n_rows, step))


def pieces(read: Counting, ahead: ReadAhead, readers: Any = "many") -> Pieces:
    return Pieces(read, ranges(100, 5), ahead, readers, lambda start, stop: None, NONE)


@pytest.mark.parametrize("readers", ["many", "one", "caller"])
@pytest.mark.parametrize("n_ahead", [0, 1, 3, 50])
def test_in_order_and_bounded(readers: str, n_ahead: int) -> None:
    read = Counting()
    with ReadAhead(n_ahead, 3) as ahead:
        track = pieces(read, ahead, readers)
        got: list[int] = []
        while n := track.available():
            assert len(read.begun) * 5 - len(got) <= 5 * (n_ahead + 1)
            got += track.take(min(n, 3)).tolist()
        assert got == list(range(100))
    expected = "MainThread" if readers == "caller" or not n_ahead else "oocload-source"
    assert all(name.startswith(expected) for name in read.threads)
    assert len(read.threads) <= (3 if readers == "many" else 1)
    if readers != "many":
        assert read.begun == sorted(read.begun)


@pytest.mark.parametrize("n_ahead", [0, 2])
def test_rows_of_several_pieces(n_ahead: int) -> None:
    with ReadAhead(n_ahead) as ahead:
        track = pieces(Counting(), ahead)
        assert track.take(12).tolist() == list(range(12))
        assert track.available() == 3
        assert track.take(0).tolist() == []
        assert track.take(88).tolist() == list(range(12, 100))
        assert track.available() == 0


@pytest.mark.parametrize("readers", ["many", "one"])
def test_an_error_comes_where_its_rows_would(readers: str) -> None:
    with ReadAhead(4, 2) as ahead:
        track = pieces(Counting(fails_at=33), ahead, readers)
        assert track.take(30).tolist() == list(range(30))
        with pytest.raises(ChunkError, match="row 33 is damaged"):
            track.available()
    assert not our_threads()


def test_close_begins_nothing_more() -> None:
    entered, go = threading.Event(), threading.Event()
    begun = []

    def read(start: int, stop: int, scratch: Scratch) -> np.ndarray:
        begun.append(start)
        entered.set()
        go.wait(10)
        return np.arange(start, stop)

    with ReadAhead(8, 1) as ahead:
        Pieces(read, ranges(100, 5), ahead, "many", lambda start, stop: None, NONE)
        entered.wait(10)
        threading.Timer(0.05, go.set).start()
    assert begun == [0]
    assert not our_threads()


class TestStores:
    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The chunks that are decoded."""
        found: list[int] = []
        decode: Callable[..., None] = ChunkReader._decode_into

        def note(self: ChunkReader, chunk: int, *rest: Any) -> None:
            found.append(chunk)
            decode(self, chunk, *rest)

        monkeypatch.setattr(ChunkReader, "_decode_into", note)
        return found

    @pytest.mark.direct
    @pytest.mark.parametrize("n_ahead", [0, 3])
    def test_no_chunk_is_decoded_twice(self, tmp_path: Path, decoded: list[int], n_ahead: int) -> None:
        path, expected = hdf5(tmp_path)
        for field in ("x", "big"):
            decoded.clear()
            rows = resolve(path, [field])
            got = gather(rows.batches(rows.wanted_piece_nbytes + 7, n_ahead=n_ahead))
            assert_rows(got, {field: expected[field]})
            assert len(decoded) == len(set(decoded))

    def test_threads_end_with_the_iteration(self, tmp_path: Path) -> None:
        rows = resolve(hdf5(tmp_path)[0], None)
        batches = rows.batches(1000, n_ahead=3, n_threads=2)
        next(batches)
        assert our_threads()
        batches.close()
        assert not our_threads()

    @pytest.mark.direct
    def test_a_damaged_chunk(self, tmp_path: Path) -> None:
        path, expected = hdf5(tmp_path)
        with h5py.File(path) as file:
            place = file["big"].id.get_chunk_info(5)
        with open(path, "r+b") as raw:
            raw.seek(place.byte_offset)
            raw.write(b"\xff" * place.size)
        got = []
        with pytest.raises(ChunkError, match=r"field 'big', chunk \(5, 0, 0\)"):
            got.extend(batch["big"] for batch in resolve(path, ["big"]).batches(9 * 60, n_ahead=3))
        assert np.array_equal(np.concatenate(got), X[:45])
        assert not our_threads()

    def test_a_truncated_stream(self, tmp_path: Path) -> None:
        path = idx(tmp_path / "x.gz", X, zipped=True)
        path.write_bytes(path.read_bytes()[:-300])
        rows = resolve(path, None)
        with pytest.raises(StoreFormatError, match=r"x\.gz is damaged or truncated"):
            list(rows.batches(600, n_ahead=3))

    def test_held(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Pieces that exist come to no more than was said, with a consumer that lets go of them."""
        rows = resolve(hdf5(tmp_path)[0], ["x", "big", "y"])
        sizes: list[int] = []
        fresh = store_module.fresh_rows

        def note(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            made = fresh(shape, dtype)
            sizes.append(made.nbytes)
            return made

        monkeypatch.setattr(store_module, "fresh_rows", note)
        piece = rows.wanted_piece_nbytes
        batches = rows.batches(piece, n_ahead=2)
        given = 0
        for batch in batches:
            assert sum(sizes) - given <= 3 * piece
            given += sum(a.nbytes for a in batch.values())
        assert given == sum(sizes)
        assert rows.held_nbytes(piece, 2) >= 3 * piece

    def test_the_least_piece(self, tmp_path: Path) -> None:
        rows = resolve(hdf5(tmp_path)[0], ["big", "y"])
        assert rows.least_piece_nbytes == 9 * 60 + 8
        cut = resolve(hdf5(tmp_path)[0], ["x"])
        assert (cut.least_piece_nbytes, cut.wanted_piece_nbytes) == (13 * 2 * 3 * 4, 13 * 60)
        assert sum(len(b["x"]) for b in cut.batches(cut.least_piece_nbytes)) == N_ROWS

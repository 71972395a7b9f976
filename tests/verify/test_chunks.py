from pathlib import Path

import google_crc32c
import numpy as np

from oocload.chunks.fetch import Files
from oocload.layout import ByteRange
from oocload.verify.chunks import BUFFER_NBYTES, ToCheck, check_chunks


class Places:
    """Chunks that lie where a list says."""

    nbytes = 0
    max_stored_nbytes = path = stamp = None

    def __init__(self, places: list[ByteRange | None]) -> None:
        self._places = places

    def find(self, chunk: int) -> ByteRange | None:
        return self._places[chunk]


def test_neighbours_are_read_together_and_judged_alone(tmp_path: Path) -> None:
    """A file that ends too early costs the chunks their places behind its end, and no other."""
    file = tmp_path / "a"
    data = np.random.default_rng(0).integers(0, 256, 1000, "u1")
    file.write_bytes(data.tobytes())
    places = [ByteRange(str(file), start, 100) for start in (900, 0, 950, 150)]
    crc = np.array([google_crc32c.value(data[p.offset : p.offset + 100].tobytes()) for p in places], np.uint32)
    crc[3] ^= 1
    files = Files(1)
    to_check = ToCheck(Places(places), 0, np.full(4, 100, np.uint64), crc)
    wrong = check_chunks(to_check, files, np.empty(BUFFER_NBYTES, np.uint8))
    assert [(w.chunk, w.place) for w in wrong] == [(2, places[2]), (3, places[3])]
    assert wrong[0].why == "it cannot be read: the file ends at byte 1000, 50 bytes too early"
    assert wrong[1].why.startswith("its bytes are not those that were written")
    file.unlink()
    files.close()
    wrong = check_chunks(to_check, files, np.empty(BUFFER_NBYTES, np.uint8))
    assert [w.why.partition(":")[0] for w in wrong] == ["it cannot be read"] * 4
    files.close()

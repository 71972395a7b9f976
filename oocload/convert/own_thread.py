"""A target whose work is done in one thread of its own: Ctrl-C, which lands in the main thread, stops none half-way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from oocload.convert.encoders import Encoded
from oocload.convert.target import Target
from oocload.stores.checksums import ArrayChecksums


class OwnThread:
    """Hands every call but `encode` to a thread, and waits for it; a call that is not waited for ends all the same.

    Parameters
    ----------
    target
        What is called.

    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="oocload-write")
        self._closed = False

    def encode(self, array: str, chunk: int, rows: NDArray[Any]) -> Encoded:
        """Encode the rows of a whole chunk, in the caller's thread."""
        return self._target.encode(array, chunk, rows)

    def put(self, array: str, chunk: int, encoded: Encoded, n_rows: int) -> None:
        """Take a chunk."""
        self._call(self._target.put, array, chunk, encoded, n_rows)

    def flush(self) -> None:
        """Hand everything taken so far to the operating system."""
        self._call(self._target.flush)

    def commit(self, note: bytes) -> None:
        """Make what was flushed the state to which a kill leads back."""
        self._call(self._target.commit, note)

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Cut arrays to their length, and write array or group → attributes."""
        self._call(self._target.finish, lengths, attributes)

    def prove(self, checksums: Mapping[str, ArrayChecksums]) -> None:
        """Write array → checksums of its chunks."""
        self._call(self._target.prove, checksums)

    def close(self) -> None:
        """Close; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._call(self._target.close)
            self._thread.shutdown()

    def _call(self, step: Callable[..., None], *args: Any) -> None:
        self._thread.submit(step, *args).result()

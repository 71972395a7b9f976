"""What the two formats share: chunks in, by array and number, commits, and a whole store at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from oocload.convert.encoders import Encoded
from oocload.stores.checksums import ArrayChecksums


class Target(Protocol):
    """Takes encoded chunks of arrays that are chunked along axis 0 alone."""

    def encode(self, array: str, chunk: int, rows: NDArray[Any]) -> Encoded:
        """Encode the rows of a whole chunk, in any thread; a target whose chunks have files writes it as well."""
        ...

    def put(self, array: str, chunk: int, encoded: Encoded, n_rows: int) -> None:
        """Take a chunk, of which some rows count; in one thread, and of each array in order."""
        ...

    def flush(self) -> None:
        """Hand everything taken so far to the operating system."""
        ...

    def commit(self, note: bytes) -> None:
        """Make what was flushed the state to which a kill leads back; the note belongs to it."""
        ...

    def finish(self, lengths: Mapping[str, int], attributes: Mapping[str, Mapping[str, Any]]) -> None:
        """Cut arrays to their length, and write array or group → attributes."""
        ...

    def prove(self, checksums: Mapping[str, ArrayChecksums]) -> None:
        """Write array → checksums of its chunks, the last that is written, and close what is open."""
        ...

    def close(self) -> None:
        """Close without caring for what was not committed; a second call does nothing."""
        ...

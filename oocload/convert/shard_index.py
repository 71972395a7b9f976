"""The index at the end of a shard (Zarr v3 specification, codec "sharding_indexed", version 1.0)."""

from __future__ import annotations

from collections.abc import Mapping

import google_crc32c
import numpy as np

_ABSENT = 2**64 - 1


def shard_index(n_chunks: int, places: Mapping[int, tuple[int, int]]) -> bytes:
    """Return the index of a shard, with its checksum.

    Parameters
    ----------
    n_chunks
        Chunks that a shard has room for.
    places
        Number of a chunk within the shard → its offset and bytes; those that are not there are left out.

    """
    index = np.full((n_chunks, 2), _ABSENT, "<u8")
    for number, place in places.items():
        index[number] = place
    table = index.tobytes()
    return table + int(google_crc32c.value(table)).to_bytes(4, "little")

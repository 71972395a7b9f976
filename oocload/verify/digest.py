"""A digest of a multiset of rows: the same in any order, another one for other rows.

::

    row      fields, each as words of 32 bits, in blocks of up to 16 KiB; of ragged fields the lengths, and items apart
    block    three sums of words times random numbers of 64 bits (multilinear hashing), mixed with its place in the row
    row      the sum of its blocks, mixed to 128 bits
    rows     the sum of their digests mod 2**128, and how many they are

Two different blocks agree in one sum with a chance of at most 2**-33, which they reach where all words differ in the
sign bit alone, and in all three with 2**-99; for most differences it is 2**-192. The random numbers are drawn from the
operating system each time, so no content can be made to collide. The sum over rows is AdHash (Clarke, Devadas, van
Dijk, Gassend and Suh, "Incremental multiset hash functions and their application to memory integrity checking",
ASIACRYPT 2003). The mixing is that of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which is no cryptographic hash:
this is a proof against mistakes and damage, not against who can see the random numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from oocload.convert.buckets import ranges_of
from oocload.convert.buffers import Rows
from oocload.convert.lanes import Elements, elements
from oocload.convert.ragged import RaggedRows

_WORD_NBYTES = 4
_BLOCK_WORDS = 4096
_SUMS = 3
_ROWS = 2**13  # at a time: their states stay in a core's cache
_CAST_WORDS = 2**15  # the same of words as numbers of 64 bits
_LONG_ROW_NBYTES = 4096  # ragged rows of so much are looked at one by one; no more than a block
_SHORT_NBYTES = 2**18  # of the others, together
_TAILS = np.array([2**32 - 1, 2**8 - 1, 2**16 - 1, 2**24 - 1], np.uint32)  # of the last word, by bytes mod 4
_MASK_32 = np.uint64(2**32 - 1)

Words = NDArray[np.uint64]


class Digest(NamedTuple):
    """How many rows there are, and the sum of their digests."""

    n_rows: int = 0
    total: int = 0

    def __add__(self, other: Digest) -> Digest:  # type: ignore[override]
        """Return the digest of the rows of both."""
        return Digest(self.n_rows + other.n_rows, (self.total + other.total) % 2**128)


class RowHash:
    """Makes digests; only those of one `RowHash` can be compared. Any thread may ask it."""

    def __init__(self) -> None:
        draw = np.random.Philox(np.random.SeedSequence(int.from_bytes(os.urandom(32))))
        self._factors = draw.random_raw(_BLOCK_WORDS * _SUMS).reshape(_BLOCK_WORDS, _SUMS)
        self._columns = np.ascontiguousarray(self._factors.T)
        self._tags = draw.random_raw(4) | np.uint64(1)

    def digest(self, rows: Mapping[str, Rows]) -> Digest:
        """Return the digest of some rows, given field by field, always in the same order."""
        n_rows = len(next(iter(rows.values())))
        total = sum(
            self._total({name: given[first : first + _ROWS] for name, given in rows.items()})
            for first in range(0, n_rows, _ROWS)
        )
        return Digest(n_rows, total % 2**128)

    def _total(self, rows: Mapping[str, Rows]) -> int:
        """Return the sum of the digests of a few rows."""
        dense: list[Elements] = []
        ragged: list[tuple[Elements, NDArray[np.int64]]] = []
        for given in rows.values():
            if not isinstance(given, RaggedRows):
                dense.append(elements(_packed(given)))
                continue
            lengths = np.diff(given.offsets)
            dense.append(elements(lengths))
            ragged += [(elements(_packed(a)), lengths) for a in (given.values, given.columns) if a is not None]
        state = self._dense(dense)
        for lane, (items, lengths) in enumerate(ragged, 1):
            state += self._ragged(items, lengths, lane)
        one, other = _mixed(state[:, 0], state[:, 1], self._tags[3])
        return _sum(one) + (_sum(other) << 64)

    def _dense(self, fields: Sequence[Elements], lane: int = 0) -> Words:
        """Return the state of rows of fields side by side, shape (rows, 2)."""
        found = np.zeros((len(fields[0]), 2), np.uint64)
        sums = np.zeros((len(found), _SUMS), np.uint64)
        at = 0
        for field in fields:
            n_words, done = -(-field.shape[1] // _WORD_NBYTES), 0
            while done < n_words:
                room = _BLOCK_WORDS - at % _BLOCK_WORDS
                n = min(room, n_words - done)
                part = field[:, done * _WORD_NBYTES : (done + n) * _WORD_NBYTES]
                self._add_words(sums, part, at % _BLOCK_WORDS)
                done, at = done + n, at + n
                if n == room:
                    found += self._block(sums, lane, at // _BLOCK_WORDS - 1)
                    sums[:] = 0
        if at % _BLOCK_WORDS:
            found += self._block(sums, lane, at // _BLOCK_WORDS)
        return found

    def _add_words(self, sums: Words, some: Elements, place: int) -> None:
        """Add the words of rows, which have this place in their blocks, to the sums of the blocks."""
        n_words = -(-some.shape[1] // _WORD_NBYTES)
        factors = self._factors[place : place + n_words]
        step = max(1, _CAST_WORDS // n_words)
        for first in range(0, len(some), step):
            sums[first : first + step] += _words(some[first : first + step]).astype(np.uint64) @ factors

    def _ragged(self, items: Elements, lengths: NDArray[np.int64], lane: int) -> Words:
        """Return the state of each row of a lane of items, shape (rows, 2)."""
        found = np.zeros((len(lengths), 2), np.uint64)
        whole, nbytes = items.reshape(-1), lengths * items.shape[1]
        ends = np.cumsum(nbytes)
        is_long = nbytes >= _LONG_ROW_NBYTES
        for row in np.flatnonzero(is_long).tolist():
            found[row] = self._one(whole[int(ends[row] - nbytes[row]) : int(ends[row])], lane)
        for first, stop in ranges_of(np.where(is_long, _SHORT_NBYTES + 1, nbytes), _SHORT_NBYTES):
            if not is_long[first]:  # a long one is a range of its own
                some = whole[int(ends[first] - nbytes[first]) : int(ends[stop - 1])]
                found[first:stop] = self._short(some, nbytes[first:stop], lane)
        return found

    def _one(self, row: NDArray[np.uint8], lane: int) -> Words:
        """Return the state of one row of any length, shape (2,)."""
        n_whole = len(row) // (_BLOCK_WORDS * _WORD_NBYTES)
        at = n_whole * _BLOCK_WORDS * _WORD_NBYTES
        found = np.zeros(2, np.uint64)
        if n_whole:
            sums = np.zeros((n_whole, _SUMS), np.uint64)
            self._add_words(sums, row[:at].reshape(n_whole, -1), 0)
            found += self._block(sums, lane, np.arange(n_whole)).sum(axis=0)
        if at < len(row):
            sums = np.zeros((1, _SUMS), np.uint64)
            self._add_words(sums, row[at:].reshape(1, -1), 0)
            found += self._block(sums, lane, n_whole)[0]
        return found

    def _short(self, some: NDArray[np.uint8], nbytes: NDArray[np.int64], lane: int) -> Words:
        """Return the state of rows that are one block at most, given as bytes one after the other."""
        n_words = -(-nbytes // _WORD_NBYTES)
        filled = np.flatnonzero(n_words)
        found = np.zeros((len(nbytes), 2), np.uint64)
        if not len(filled):
            return found
        firsts = np.cumsum(n_words) - n_words
        place = np.arange(int(n_words.sum()))
        place -= np.repeat(firsts, n_words)
        words = _short_words(some, nbytes, n_words, place).astype(np.uint64)
        sums = np.empty((len(filled), _SUMS), np.uint64)
        for number in range(_SUMS):
            products = self._columns[number].take(place)
            products *= words
            sums[:, number] = np.add.reduceat(products, firsts[filled])
        found[filled] = self._block(sums, lane, 0)
        return found

    def _block(self, sums: Words, lane: int, block: int | NDArray[np.int64]) -> Words:
        """Return what blocks add to the states of their rows."""
        tag = (np.uint64(lane << 32) | np.asarray(block).astype(np.uint64)) * self._tags[:1]
        one, other = _mixed(sums[:, 0] + tag, sums[:, 1], self._tags[1])
        return np.stack(_mixed(one ^ _mix(sums[:, 2] + tag), other, self._tags[2]), axis=1)


def _mix(z: Words) -> Words:
    """Return numbers mixed as SplitMix64 does it: one for one."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _mixed(one: Words, other: Words, tag: np.uint64) -> tuple[Words, Words]:
    """Return pairs of numbers mixed with each other, one for one: three rounds of a Feistel network."""
    other = other ^ _mix(one + tag)
    one = one ^ _mix(other)
    return one, other ^ _mix(one + tag)


def _sum(numbers: Words) -> int:
    """Return the sum of less than 2**32 numbers, without overflow."""
    return int((numbers & _MASK_32).sum()) + (int((numbers >> np.uint64(32)).sum()) << 32)


def _words(some: Elements) -> NDArray[np.uint32]:
    """Return rows of bytes as words, padded with zeros."""
    n_rows, nbytes = some.shape
    if nbytes % _WORD_NBYTES or some.strides != (nbytes, 1) or some.ctypes.data % _WORD_NBYTES:
        room = np.zeros((n_rows, -(-nbytes // _WORD_NBYTES) * _WORD_NBYTES), np.uint8)
        room[:, :nbytes] = some
        some = room
    return some.view(np.uint32)


def _short_words(
    some: NDArray[np.uint8], nbytes: NDArray[np.int64], n_words: NDArray[np.int64], place: NDArray[np.int64]
) -> NDArray[np.uint32]:
    """Return ragged rows of bytes as words, each row padded with zeros; ``place`` is that of each word in its row."""
    if not (nbytes % _WORD_NBYTES).any():
        aligned: NDArray[np.uint32] = _words(some.reshape(1, -1))[0]
        return aligned
    n = len(some) // _WORD_NBYTES + 1
    moved = np.zeros((_WORD_NBYTES, n * _WORD_NBYTES), np.uint8)  # the bytes from the first one on, the second, ...
    for by in range(_WORD_NBYTES):
        moved[by, : max(0, len(some) - by)] = some[by:]
    at = place * _WORD_NBYTES
    at += np.repeat(np.cumsum(nbytes) - nbytes, n_words)
    words: NDArray[np.uint32] = moved.view(np.uint32).reshape(-1).take((at & 3) * n + (at >> 2))
    filled = n_words > 0
    words[(np.cumsum(n_words) - 1)[filled]] &= _TAILS[nbytes[filled] % _WORD_NBYTES]
    return words


def _packed(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return rows without what lies between the members of their dtype, which nobody has written."""
    if rows.dtype.names is None:
        return rows
    from numpy.lib.recfunctions import repack_fields

    packed: NDArray[np.generic] = repack_fields(rows, recurse=True)
    return packed

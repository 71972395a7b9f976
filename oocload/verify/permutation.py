"""Whether a store holds exactly the rows of a source, in any order: both are read once, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from oocload.convert.fields import Spec, parse_fields, spec_of
from oocload.convert.sources.base import RowSource
from oocload.convert.sources.resolve import resolve
from oocload.convert.stream import closing_batches
from oocload.convert.writer import check_rows
from oocload.errors import InvalidArgumentError
from oocload.verify.digest import Digest, RowHash

_PIECE_NBYTES = 4 * 2**20


def difference(
    store: Any, source: Any, fields: Sequence[str] | None, n_threads: int, progress: bool | None, title: str
) -> str:
    """Return how the rows of a store differ from those of a source, in any order; empty where they do not.

    Raises
    ------
    InvalidArgumentError
        If they have other fields, or fields of another shape or dtype.

    """
    ours, theirs = resolve(store, fields), resolve(source, fields)
    if ours.specs is not None and theirs.specs is not None:
        _check_specs(parse_fields(ours.specs), parse_fields(theirs.specs))
    if None not in (ours.n_rows, theirs.n_rows) and ours.n_rows != theirs.n_rows:
        return _of_lengths(ours.n_rows, theirs.n_rows)
    names = sorted(parse_fields(ours.specs or {}))
    n_rows = None if ours.n_rows is None else 2 * ours.n_rows
    hashes = RowHash()
    disabled = None if progress is None else not progress
    with tqdm(total=n_rows, unit=" rows", unit_scale=True, desc=f"{title}: rows", disable=disabled) as bar:
        found = []
        for rows in (theirs, ours):
            total = Digest()
            for digest in _digests(rows, parse_fields(ours.specs or {}), names, hashes, n_threads):
                total += digest
                bar.update(digest.n_rows)
            found.append(total)
    if found[0].n_rows != found[1].n_rows:
        return _of_lengths(found[1].n_rows, found[0].n_rows)
    return "" if found[0] == found[1] else f"its {found[1].n_rows:,} rows are not those of the source"


def _of_lengths(ours: int | None, theirs: int | None) -> str:
    return f"it has {ours:,} rows, and the source has {theirs:,}"


def _check_specs(ours: Mapping[str, Spec], theirs: Mapping[str, Spec]) -> None:
    """Raise where fields are others.

    Raises
    ------
    InvalidArgumentError
        If a field is missing, or has another shape or dtype.

    """
    if ours.keys() != theirs.keys():
        raise InvalidArgumentError(
            f"permutation_of must have the fields of the store, {sorted(ours)}, got {sorted(theirs)}; choose those to "
            "compare with fields="
        )
    for name, spec in ours.items():
        if theirs[name] != spec:
            raise InvalidArgumentError(
                f"permutation_of must have rows as the store has, and field {name!r} has {spec} in the store, got "
                f"{theirs[name]}; rows that were cast cannot be compared"
            )


def _digests(
    rows: RowSource, specs: Mapping[str, Spec], names: Sequence[str], hashes: RowHash, n_threads: int
) -> Iterator[Digest]:
    """Yield the digests of all rows, made by threads."""
    pending: deque[Future[Digest]] = deque()
    batches = rows.batches(max(_PIECE_NBYTES, rows.least_piece_nbytes), 0, None, n_threads, n_threads)
    with ThreadPoolExecutor(n_threads, "oocload-verify") as pool, closing_batches(batches):
        while (batch := next(batches, None)) is not None:
            if rows.specs is None:
                _check_specs(specs, parse_fields({name: spec_of(name, some) for name, some in batch.items()}))
            given = check_rows(batch, specs)
            work = pool.submit(hashes.digest, {name: given[name] for name in names})
            del batch, given
            pending.append(work)
            if len(pending) > n_threads or not rows.owned:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

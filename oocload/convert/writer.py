"""The writer: rows in, a complete store out, or nothing at its name and a folder beside it from which to go on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

import oocload.stores as stores
from oocload.convert.auto import candidates_of, choose_codec
from oocload.convert.budget import Budget, share_out
from oocload.convert.buffers import Rows
from oocload.convert.encode import Encoding
from oocload.convert.fields import Spec, parse_fields, spec_of, what_may_fit
from oocload.convert.journal import Journal
from oocload.convert.options import Options
from oocload.convert.ragged import RaggedRows
from oocload.convert.recipe import digest, fields_of
from oocload.convert.session import Done, Meanings, Order, Session, Source, load_journal, must_compare
from oocload.convert.workplace import Workplace, check_target
from oocload.errors import ClosedError, ConversionError, InvalidArgumentError, OocloadError
from oocload.stores.checksums import read_checksums

_UNKNOWN = Source()


class Piece(NamedTuple):
    """The bytes of the smallest piece in which a source can be read, why it is no smaller, and what serves it best."""

    nbytes: int
    reason: str
    wanted_nbytes: int = 0


_NO_PIECE = Piece(0, "")


class Writer:
    """Writes a store row by row, in chunks; made by `create`.

    Use it as a context manager: the store appears under its name when the block ends, whole, by one rename. If the
    block raises, or the process is killed, nothing is at that name, and what was written stays in a folder beside it,
    ``.NAME.oocload``, from which ``create(..., resume=True)`` goes on. Not thread-safe.

    Attributes
    ----------
    path
        Where the store will be.
    n_rows
        Rows appended so far; after ``resume=True`` those that are there already, so go on with that row.
    nbytes
        Bytes of them in the arrays of the store, decoded.

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fields: Mapping[str, Any] | None,
        options: Options,
        *,
        n_rows: int | None = None,
        source: Source = _UNKNOWN,
        piece: Piece = _NO_PIECE,
        meanings: Meanings = dict,
    ) -> None:
        self.path = Path(path)
        self.n_rows = 0
        self.nbytes = 0
        self._options = options
        self._format = options.format_of(self.path)
        self._encoding = options.encoding_for(self._format)
        self._n_rows_expected = n_rows
        self._source = source
        self._piece = piece
        self._meanings = meanings
        self._session: Session | None = None
        self._budget: Budget | None = None
        self._closed = False
        self._done: Done | None = None
        self._fields = None if fields is None else parse_fields(fields)
        check_target(self.path, options.overwrite or options.resume)
        if options.resume:
            self._resume()
        elif self._fields is not None and self._encoding is not None:
            self._guarded(self._start, self._fields, self._encoding)

    @property
    def stored_nbytes(self) -> int:
        """Bytes of the chunks written so far."""
        return 0 if self._session is None else self._session.stored_nbytes

    @property
    def fields(self) -> Mapping[str, Spec]:
        """Name → what each field is; empty before the first rows, where only they tell."""
        return self._fields or {}

    @property
    def codec(self) -> str:
        """The codec and its level, as text; empty before it is chosen."""
        return "" if self._encoding is None else str(self._encoding)

    @property
    def encoding(self) -> Encoding | None:
        """The codec and its level; None before it is chosen."""
        return self._encoding

    @property
    def budget(self) -> Budget | None:
        """What reading may hold; None before the first rows, where only they tell the fields."""
        return self._budget

    @property
    def is_whole(self) -> bool:
        """Whether the store is there already, made by the run that was to be resumed."""
        return self._done is not None

    @property
    def session(self) -> Session | None:
        """The run that makes the store, for those who write its chunks in other processes."""
        return self._session

    def append(self, **rows: Any) -> None:
        """Append rows: one array per field, all of the same length; copied before this returns.

        Rows of several lengths are a list (or an object array) of arrays or lists, or a tuple ``(values, offsets)``:
        row i is ``values[offsets[i]:offsets[i + 1]]``. Sparse rows are a SciPy matrix or array in CSR format.

        Raises
        ------
        InvalidArgumentError
            If a field is missing or unknown, or rows have another shape, length or dtype; nothing is lost.
        ConversionError
            If the disk is full or cannot be written; what was written before is kept for ``resume=True``.

        """
        self.append_batch(rows)

    def append_batch(self, rows: Mapping[str, Any], owned: bool = False) -> None:
        """Append rows as `append` does, given as a mapping; for field names that are no Python names.

        ``owned`` says that nobody will change the arrays any more, so that they need not be copied.
        """
        if self._closed or self.is_whole:
            raise ClosedError(f"writer must be open, and {self.path} is finished; create a new store")
        fields = self._fields
        if fields is None:
            fields = parse_fields({name: spec_of(name, given) for name, given in rows.items()})
        checked = check_rows(rows, fields)
        if self._session is None:
            self._fields = fields
            encoding = self._encoding or self._choose(fields, checked)
            self._guarded(self._start, fields, encoding)
        self._guarded(self._append, checked, owned)

    def close(self) -> None:
        """Finish: the store appears under its name. A second call does nothing.

        Raises
        ------
        ConversionError
            If no row was appended, or the disk is full.
        TargetExistsError
            If something appeared at the destination meanwhile; what was written is kept for ``resume=True``.

        """
        if self._closed or self.is_whole:
            self._closed = True
            return
        if self.n_rows == 0 or self._session is None:
            self.abort()
            raise ConversionError(f"a store must have at least one row, and none was appended to {self.path}")
        self._guarded(self._session.finish)
        self._closed = True

    def conclude(self, n_rows: int) -> None:
        """Finish a store whose chunks other processes have written."""
        assert self._session is not None
        self.n_rows = n_rows
        self._guarded(self._session.conclude, n_rows)
        self._closed = True

    def abort(self) -> None:
        """Stop and remove what was written; a second call does nothing."""
        if not self._closed and self._session is not None:
            self._session.discard()
        self._closed = True

    def suspend(self) -> None:
        """Stop and keep what was written, for ``resume=True``; a second call does nothing."""
        if not self._closed and self._session is not None:
            self._session.suspend()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None:
            self.close()
        elif not self._closed and self._session is not None:
            self._stop(exc)

    def _resume(self) -> None:
        """Take up the work of an earlier run, if there is any."""
        place = Workplace(self.path)
        journal = None
        try:
            journal = load_journal(place, self._format)
            if journal is not None and journal.whole is not None:
                done = Done(**journal.whole)
                if place.is_published(done.inode) and not self._is_of_this(place, journal):
                    journal.close()  # of a run that lacked nothing but to remove it
                    place.clear()
                    journal = None
                elif place.is_published(done.inode) or not must_compare(journal, self._order_of(journal), place):
                    self._finish_whole(place, journal, done)
                    return
            if journal is None and self._is_made():
                place.remove()
                return
            check_target(self.path, self._options.overwrite)
        except BaseException:
            if journal is None:
                place.remove()
            else:
                journal.close()
                place.close()
            raise
        if journal is not None:
            fields, encoding = self._said_by(journal)
        elif self._fields is not None and self._encoding is not None:
            fields, encoding = self._fields, self._encoding
        else:  # begun anew when the first rows tell
            place.close() if place.scratch.exists() else place.remove()
            return
        self._fields = fields
        self._guarded(self._start, fields, encoding, place, journal)

    def _said_by(self, journal: Journal) -> tuple[dict[str, Spec], Encoding]:
        """Return fields and encoding: those asked for, or where rows were to tell, those of a journal."""
        fields = self._fields or fields_of(journal.recipe)
        return fields, self._encoding or Encoding(journal.recipe["codec"], journal.recipe["level"])

    def _order_of(self, journal: Journal) -> Order:
        return self._order(*self._said_by(journal))

    def _is_of_this(self, place: Workplace, journal: Journal) -> bool:
        try:
            must_compare(journal, self._order_of(journal), place)
        except InvalidArgumentError:
            return False
        return True

    def _finish_whole(self, place: Workplace, journal: Journal, done: Done) -> None:
        """Give a store its name that was whole when its maker was killed, unless it has it already."""
        journal.close()
        if not place.is_published(done.inode):
            place.publish(self._options.overwrite)
        place.remove()
        self._done, self.n_rows, self.nbytes = done, done.n_rows, done.nbytes

    def _is_made(self) -> bool:
        """Whether what lies at the destination is what would be made, of a source that is known to be the same."""
        fields = self._fields
        known_source = self._source.identity is not None or not self._source.compared
        if not self.path.exists() or fields is None or not known_source:
            return False
        encodings = candidates_of(self._format) if self._encoding is None else [self._encoding]
        orders = {digest(order.recipe): order for order in (self._order(fields, encoding) for encoding in encodings)}
        try:
            with stores.open(self.path) as store:
                found = [read_checksums(store, name) for name in next(iter(orders.values())).arrays]
                layouts = [store.field(name) for name in fields]
        except OocloadError:
            return False
        conversions = {"" if known is None else known.conversion for known in found}
        made = orders.get(conversions.pop())
        if made is None or conversions:
            return False
        self._encoding = made.encoding
        self.n_rows, self.nbytes = layouts[0].n_rows, sum(layout.nbytes for layout in layouts)
        self._done = Done(0, self.n_rows, self.nbytes)
        return True

    def _order(self, fields: Mapping[str, Spec], encoding: Encoding) -> Order:
        arrays = self._options.arrays_of(fields, self._format, self._n_rows_expected)
        chunks = [array.chunk_nbytes for array in arrays.values()]
        n_cores = len(os.sched_getaffinity(0))
        piece = self._piece
        budget = share_out(
            self._options.memory, chunks, piece.nbytes or max(chunks), n_cores, piece.reason, piece.wanted_nbytes
        )
        return Order(
            self._format, fields, arrays, encoding, self._source, budget, self._options.overwrite, self._meanings
        )

    def _start(
        self,
        fields: dict[str, Spec],
        encoding: Encoding,
        place: Workplace | None = None,
        journal: Journal | None = None,
    ) -> None:
        try:
            order = self._order(fields, encoding)
            self._budget, self._encoding = order.budget, encoding
            self._session = Session(place or Workplace(self.path), order, journal)
        except (OSError, OocloadError):
            if place is not None:
                place.close()
            raise
        except Exception as exc:  # what a format cannot store, h5py and zarr say in many ways
            shown = ", ".join(f"{name!r}: {spec}" for name, spec in fields.items())
            reason = " ".join(str(exc).split())
            raise InvalidArgumentError(
                f"fields must be such as {self.path.suffix} can hold, got {shown} ({reason}); {what_may_fit(fields)}"
            ) from exc
        self.n_rows, self.nbytes = self._session.n_rows, self._session.nbytes

    def _append(self, rows: dict[str, Rows], owned: bool) -> None:
        assert self._session is not None
        self._session.append(rows, owned)
        self.n_rows, self.nbytes = self._session.n_rows, self._session.nbytes

    def _guarded(self, step: Callable[..., None], *args: Any) -> None:
        """Run a step; whatever goes wrong, what is done is kept, and what the disk says becomes one clear error."""
        try:
            step(*args)
        except OocloadError as exc:
            self._stop(exc)
            raise
        except (OSError, RuntimeError) as exc:
            failed = ConversionError(_what_failed(exc, self.path))
            self._stop(failed)
            raise failed from exc
        except BaseException as exc:
            self._stop(exc)
            raise

    def _stop(self, exc: BaseException) -> None:
        """Suspend, and say in a note of the exception what is kept."""
        kept = self._session is not None and self._session.suspend()
        self._closed = self._closed or self._session is not None
        if kept and self._session is not None:
            n_rows = self._session.n_rows_kept
            what = f"{n_rows:,} rows" if n_rows else "rows read for the shuffle"
            exc.add_note(f"{what} are kept beside {self.path}: pass resume=True (--resume) to go on")

    def _choose(self, fields: Mapping[str, Spec], rows: Mapping[str, Rows]) -> Encoding:
        """Return the codec that suits the first rows best."""
        samples = {name: given for name, given in rows.items() if isinstance(given, np.ndarray)}
        ragged = {name: given.values for name, given in rows.items() if isinstance(given, RaggedRows)}
        arrays = {**samples, **ragged}
        return choose_codec(self._format, arrays, self.path.parent, len(os.sched_getaffinity(0))).encoding


def check_rows(rows: Mapping[str, Any], fields: Mapping[str, Spec]) -> dict[str, Rows]:
    """Return rows as their fields take them.

    Raises
    ------
    InvalidArgumentError
        If a field is missing or unknown, or rows have another shape, length or dtype.

    """
    if rows.keys() != fields.keys():
        raise InvalidArgumentError(f"rows must be given for fields {sorted(fields)}, got {sorted(rows)}")
    checked: dict[str, Rows] = {name: spec.check(name, rows[name]) for name, spec in fields.items()}
    lengths = {name: len(given) for name, given in checked.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise InvalidArgumentError(f"fields must be appended in equal numbers of rows: {shown}")
    return checked


def _what_failed(exc: BaseException, path: Path) -> str:
    text = " ".join(str(exc).split())
    full = getattr(exc, "errno", None) == errno.ENOSPC or "No space left" in text or "errno = 28" in text
    cause = "the disk is full; free some space or choose another place" if full else text
    left = "what is at that name is as it was" if path.exists() else "nothing was left at that name"
    return f"writing {path} failed: {cause}; {left}"

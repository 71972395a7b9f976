"""WebDataset archives: tars in which files of one name, but for its ending, are one sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import oocload.stores as stores
from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec, parse_fields
from oocload.convert.sources.identity import Identity, file_facts
from oocload.convert.sources.records import OnError, Records, RecordSource, check_on_error
from oocload.convert.sources.skipped import Skipped
from oocload.convert.sources.stacking import Form, Stack, form_of
from oocload.convert.sources.tar_members import DamagedTarError, is_tar, members
from oocload.convert.sources.webdataset_members import decoded, field_names, has_image, split_name
from oocload.errors import InvalidArgumentError, StoreFormatError, StoreNotFoundError
from oocload.layout import Meaning

_KEY = "id"
_SAMPLE_NBYTES = 1000  # of a sample, beside what is in its files


class _Sample(NamedTuple):
    """The files of one sample, by their endings."""

    path: str
    key: str
    files: dict[str, bytes]

    @property
    def where(self) -> str:
        return f"{self.path}, sample {self.key!r}"

    @property
    def nbytes(self) -> int:
        return _SAMPLE_NBYTES + sum(map(len, self.files.values()))


class _Piece(NamedTuple):
    """Samples that are read as one, and why those after them cannot be found."""

    samples: list[_Sample]
    skipped: list[Skipped]


class WebDatasetSource(RecordSource[_Piece]):
    """WebDataset archives: ``.tar`` files, gzip or not, read from front to back; nothing is extracted to disk.

    Files that follow each other and have the same name up to its first dot are a sample; that name, with the folder,
    is kept as the field ``id``. ``0001.cls`` holds a whole number, the field ``y``; ``0001.npy`` an array (pickled
    objects are refused), ``0001.txt`` text, ``0001.json`` an object, whose numbers, lists of numbers and texts become
    fields such as ``json/width``; images stay encoded, ragged rows of bytes known as images. The only image or array
    of a sample is the field ``x``; other files have their endings as names, ``0001.seg.png`` is ``seg.png``; and those
    of other endings are kept as bytes. The first sample tells shapes and dtypes.

    Parameters
    ----------
    paths
        An archive, a glob, or a list of archives, whose samples follow each other.
    members
        Field → ending, ``{"x": "jpg", "y": "cls"}``; those that are not named are left out. An ending may be several:
        ``{"x": "jpg;png"}``. None takes all that the first sample has.
    fields, ragged
        As of `RowsSource`: specs that the first sample does not tell, and fields whose rows differ in length.
    on_error
        What becomes of samples that lack a file, or have a damaged one: ``"raise"``, or ``"skip"``, which lists them in
        the report. Where an archive is damaged or truncated, what follows in it is skipped with it.

    Raises
    ------
    StoreNotFoundError
        If an archive is not there.
    InvalidArgumentError
        If an argument is something else.

    Examples
    --------
    >>> import io, tarfile, oocload
    >>> with tarfile.open("train-0.tar", "w") as tar:
    ...     for i in range(10):
    ...         for ending, data in {"txt": b"some text", "cls": b"%d" % (i % 2)}.items():
    ...             member = tarfile.TarInfo(f"{i:04}.{ending}")
    ...             member.size = len(data)
    ...             tar.addfile(member, io.BytesIO(data))
    >>> source = oocload.sources.WebDatasetSource("train-*.tar", members={"x": "txt", "y": "cls"})
    >>> oocload.convert(source, "shards.zarr", on_error="skip").fields
    ('id', 'x', 'y')

    """

    skips = True

    def __init__(
        self,
        paths: stores.Paths,
        *,
        members: Mapping[str, str] | None = None,
        fields: Mapping[str, Any] | None = None,
        ragged: Sequence[str] | bool = (),
        on_error: OnError = "raise",
    ) -> None:
        check_on_error(on_error)
        if members is not None and (not isinstance(members, Mapping) or not members or _KEY in members):
            raise InvalidArgumentError(
                f"members must map names of fields, but {_KEY!r}, to endings such as 'jpg', got {members!r}"
            )
        self.on_error = on_error
        self._paths = [str(Path(path).absolute()) for path in stores.expand(paths, "source")]
        for path in self._paths:
            if not Path(path).is_file():
                raise StoreNotFoundError(f"paths must be archives, got {path!r}; nothing lies there, or a folder")
        more = len(self._paths) - 1
        self.label = self._paths[0] + (f" and {more} more" if more else "")
        self._members = None if members is None else {f: tuple(m.lower().split(";")) for f, m in members.items()}
        self._given = {} if fields is None else parse_fields(fields)
        self._ragged = ragged
        self.least_piece_reason = f"{self.label} has samples that take as much; raise memory="

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path has the suffix of an archive."""
        return is_tar(path) and Path(path).is_file()

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of some archives."""
        return cls(paths)

    @property
    def record_specs(self) -> Mapping[str, Spec]:
        """Field → spec."""
        return self._form.specs

    @property
    def record_meanings(self) -> Mapping[str, Meaning]:
        """Field → whether it is text or images."""
        return self._form.meanings

    @property
    def least_piece_nbytes(self) -> int:
        """The first sample, with what decoding it takes."""
        return int(self._growth * self._first.nbytes)

    def record_identity(self) -> Identity:
        """Return size and time of every archive, and the options."""
        ragged = self._ragged if isinstance(self._ragged, bool) else list(self._ragged)
        given = {name: str(spec) for name, spec in self._given.items()}
        members = None if self._members is None else {name: list(m) for name, m in self._members.items()}
        return {
            "webdataset": [file_facts(path) for path in self._paths],
            "options": {"members": members, "fields": given, "ragged": ragged},
        }

    def pieces(self, piece_nbytes: int, start: int, stop: int | None) -> Iterator[_Piece]:
        """Yield samples that come to a piece."""
        del start, stop
        most = int(piece_nbytes / self._growth)
        samples: list[_Sample] = []
        skipped: list[Skipped] = []
        nbytes = 0
        for sample in self._samples(skipped):
            if samples and nbytes + sample.nbytes > most:
                yield _Piece(samples, skipped[:])
                samples, nbytes = [], 0
                skipped.clear()
            samples.append(sample)
            nbytes += sample.nbytes
        if samples or skipped:
            yield _Piece(samples, skipped)

    def read(self, piece: _Piece, scratch: Scratch) -> Records:
        """Return the rows of some samples."""
        del scratch
        stack = Stack(self._form, 0, max(1, len(piece.samples)))
        skipped = list(piece.skipped)
        for sample in piece.samples:
            try:
                stack.add(self._row(sample, self._files), sample.where)
            except (InvalidArgumentError, StoreFormatError) as exc:
                if self.on_error == "raise":
                    raise StoreFormatError(str(exc)) from exc
                skipped.append(Skipped(sample.where, str(exc)))
        return Records(stack.take(), skipped)

    def _samples(self, skipped: list[Skipped]) -> Iterator[_Sample]:
        """Yield the samples of all archives."""
        for path in self._paths:
            sample = _Sample(path, "", {})
            try:
                for name, data in members(path):
                    key, ending = split_name(name)
                    if not ending or (
                        self._members is not None and not any(ending in m for m in self._members.values())
                    ):
                        continue
                    if key != sample.key:
                        if sample.files:
                            yield sample
                        sample = _Sample(path, key, {})
                    if ending in sample.files:
                        raise StoreFormatError(f"{sample.where} has two files that end in .{ending}")
                    sample.files[ending] = data
            except DamagedTarError as exc:
                if self.on_error == "raise":
                    raise
                skipped.append(Skipped(path, f"{exc}; what follows is skipped"))
                continue  # of the sample at which it ends there may be more
            if sample.files:
                yield sample

    def _row(self, sample: _Sample, names: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
        """Return field → value of a sample.

        Raises
        ------
        StoreFormatError
            If a file is missing, damaged, or there is one more.

        """
        row: dict[str, Any] = {_KEY: sample.key}
        left = set(sample.files)
        for field, endings in names.items():
            ending = next((e for e in endings if e in sample.files), None)
            if ending is None:
                wanted = " or ".join(f".{e}" for e in endings)
                raise StoreFormatError(f"{sample.where} must have a file that ends in {wanted}, got {_shown(sample)}")
            left.discard(ending)
            row |= decoded(field, ending, sample.files[ending], sample.where)
        if left and self._members is None:
            raise StoreFormatError(
                f"{sample.where} has a file that ends in .{min(left)}, and the first sample has none; name those to "
                "take with members="
            )
        return row

    @cached_property
    def _first(self) -> _Sample:
        """The first sample that can be read."""
        for sample in self._samples([]):
            try:
                self._row(sample, self._members or field_names(sample.files))
            except StoreFormatError:
                if self.on_error == "raise":
                    raise
                continue
            return sample
        raise StoreFormatError(f"{self.label} must hold at least one sample that can be read, got none")

    @cached_property
    def _files(self) -> Mapping[str, tuple[str, ...]]:
        """Field → endings of its file."""
        return self._members or field_names(self._first.files)

    @cached_property
    def _form(self) -> Form:
        """What the first sample tells."""
        row = self._row(self._first, self._files)
        form = form_of(row, self._first.where, self._ragged, self._given)
        images = {name: Meaning(content="image") for name, endings in self._files.items() if has_image(endings)}
        return Form(form.specs, {**form.meanings, **images})

    @cached_property
    def _growth(self) -> float:
        """Bytes that are held for each byte of a sample: its files, its rows, and those once more while joined."""
        stack = Stack(self._form, 0, 1)
        stack.add(self._row(self._first, self._files), self._first.where)
        made: int = sum(
            rows.nbytes if hasattr(rows, "nbytes") else 2 * rows.values.nbytes for rows in stack.take().values()
        )
        return 1 + made / self._first.nbytes


def _shown(sample: _Sample) -> str:
    return ", ".join(f".{ending}" for ending in sample.files)

"""Images in folders, or named by a CSV file: decoded to rows of one shape, or stored as the files are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from oocload.chunks.image_head import ImageHead, NotEnoughError, image_head
from oocload.chunks.images import Fit, ImageForm, Mode, Pixels, head_of, measured
from oocload.chunks.scratch import Scratch
from oocload.convert.fields import Spec
from oocload.convert.ragged import RaggedRows, RaggedSpec
from oocload.convert.sources.folders import check_folder, files_below, holds_files
from oocload.convert.sources.fresh import fresh_rows
from oocload.convert.sources.image_names import Folders, read_folders
from oocload.convert.sources.labels import encode_labels, encode_splits, read_csv, typed
from oocload.convert.sources.records import OnError, check_on_error
from oocload.convert.sources.sample_files import Read, SampleFiles
from oocload.convert.sources.samples import Samples
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.layout import Meaning
from oocload.units import true_or_false

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pgm", ".ppm")
_HEAD_NBYTES = 4096  # in which most images have said their size


class ImageFolderSource(SampleFiles):
    """Images as rows of ``x``, with the fields ``y`` (class), ``id`` (path) and ``split``.

    ::

        root/cat/1.png                                       y
        root/train/cat/1.png  root/validation/cat/9.png      y and split; root/test/7.png has y = -1
        root/1.png                                           no y
        labels.csv: path,label                               y; a column of sets, where it is named, is the split

    Parameters
    ----------
    path
        A folder, whose images are taken in natural order of their paths (``2.png`` before ``10.png``), or a CSV file,
        whose order is kept. The id is the path relative to the folder, or as the CSV file has it. Classes are folders,
        sorted by name, at any depth below; sets are folders called train, training, val, valid, validation, test or
        testing, if all folders are. Names that begin with a dot are left out.
    path_column, label_column, split_column
        Of a CSV file: the columns with paths, labels and names of sets; None for no such field. Labels that are all
        numbers stay numbers, others become codes of their sorted vocabulary, -1 where there is none.
    root
        Of a CSV file: the folder that paths are relative to; None takes that of the file.
    size
        Height and width; None leaves images as they are, and all must have one shape.
    fit
        How an image gets that size: ``"resize"`` scales both sides, whatever its proportions; ``"crop"`` scales it
        until it covers the size, and takes the middle; ``"pad"`` scales it until it fits in, with black around.
        Scaling is bilinear over all pixels that a new one stands for (Pillow's ``BILINEAR``).
    mode
        ``"rgb"``: rows of (height, width, 3); ``"grey"``: (height, width). None: as the first image is. Alpha is left
        out; of 16 bits the upper 8 are kept; of animations the first image.
    orient
        Whether images are turned upright, as Exif says that the camera was held.
    draft
        Whether JPEG images of at least four times ``size`` are decoded at a half, quarter or eighth of their size, at
        least twice ``size``: several times faster, with values that differ by one or two on average.
    encoded
        Whether ``x`` has the files as they are, as ragged bytes; `oocload.DecodeImages` decodes them while loading. The
        rest of each file but its beginning is not looked at.
    on_error
        What becomes of images that cannot be read: ``"raise"``, or ``"skip"`` to list them in the report.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, InvalidArgumentError
        If nothing is there or an option breaks its rule. When it is read: if an image is damaged, or has another shape
        than the first where ``size`` is None.
    MissingPackageError
        If images must be resized or are neither JPEG, PNG nor WebP, and Pillow is not installed.

    Examples
    --------
    >>> import imagecodecs, numpy as np, oocload
    >>> from pathlib import Path
    >>> for name in ("cat", "dog"):
    ...     Path(f"pets/{name}").mkdir(parents=True)
    ...     for i in range(10):
    ...         pixels = np.full((32, 40, 3), i, "uint8")
    ...         _ = Path(f"pets/{name}/{i}.png").write_bytes(imagecodecs.png_encode(pixels))
    >>> report = oocload.convert(oocload.sources.ImageFolderSource("pets"), "pets.h5")
    >>> report.n_rows, report.fields
    (20, ('x', 'y', 'id'))
    >>> oocload.open("pets.h5").field("x").shape
    (20, 32, 40, 3)

    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: tuple[int, int] | None = None,
        fit: Fit = "resize",
        mode: Mode | None = None,
        orient: bool = True,
        draft: bool = True,
        encoded: bool = False,
        path_column: str = "path",
        label_column: str | None = "label",
        split_column: str | None = None,
        root: str | os.PathLike[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        check_on_error(on_error)
        self.on_error = on_error
        self.label = os.fspath(path)
        self._form = ImageForm(size, fit, mode, orient, draft)
        self._encoded = true_or_false("encoded", encoded)
        if root is not None and not isinstance(root, str | os.PathLike):
            raise InvalidArgumentError(f"root must be the path of a folder, got {root!r}")
        if os.path.isfile(path):
            columns = [path_column, *filter(None, (label_column, split_column))]
            rows = read_csv(path, columns)
            if not rows:
                raise StoreFormatError(f"{self.label} must name at least one image, and has no line below the first")
            folder = os.path.dirname(self.label) if root is None else os.fspath(root)
            self._ids = [row[0] for row in rows]
            self._columns: dict[str, list[str]] | None = {c: [r[i] for r in rows] for i, c in enumerate(columns)}
            self._label_column, self._split_column = label_column, split_column
        else:
            check_folder(self.label)
            if root is not None:
                raise InvalidArgumentError(f"root must be left out unless path is a CSV file, got {os.fspath(root)!r}")
            folder, self._columns = self.label, None
            self._ids = files_below(folder, IMAGE_SUFFIXES)
        folder = os.path.abspath(folder)
        self.paths = [os.path.join(folder, name) for name in self._ids]

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether a path is a folder of images."""
        return holds_files(path, IMAGE_SUFFIXES)

    @classmethod
    def from_paths(cls, paths: Sequence[str]) -> Self:
        """Return the source of one folder."""
        if len(paths) > 1:
            raise InvalidArgumentError(
                f"source must be one folder of images, got {len(paths)}; pass the one above them"
            )
        return cls(paths[0])

    @cached_property
    def samples(self) -> Samples:
        """Paths, classes and sets."""
        found = read_folders(self._ids, self.label) if self._columns is None else self._read_columns()
        return Samples(self._ids, found.labels, found.splits)

    @property
    def x_spec(self) -> Spec:
        """Images of one shape, or bytes of files."""
        return RaggedSpec((), np.dtype(np.uint8)) if self._encoded else FieldSpec(self._shape, np.dtype(np.uint8))

    @property
    def x_meaning(self) -> Meaning:
        """Whether they are files, and what shape they are to have."""
        return Meaning(content="image", shape=self._settled.shape) if self._encoded else Meaning()

    @property
    def costs(self) -> int | NDArray[np.int64]:
        """Bytes of an image, or of each file."""
        return self.sizes if self._encoded else FieldSpec(self._shape, np.dtype(np.uint8)).row_nbytes

    @property
    def spare(self) -> int | NDArray[np.int64]:
        """Bytes of a file, and what decoding takes; of many shapes, what the beginning of each file tells."""
        return self.sizes if self._encoded else self._decoding_nbytes

    @property
    def least_piece_reason(self) -> str:  # type: ignore[override]
        """The image that takes most."""
        most = self.paths[int(np.argmax(self.costs + self.spare))] if self._encoded or self._form.size else self.label
        return f"{most} takes most of it; raise memory="

    @property
    def options(self) -> dict[str, Any]:
        """All that changes the rows."""
        form = self._form
        return {
            "size": form.size,
            "fit": form.fit,
            "mode": form.mode,
            "orient": form.orient,
            "draft": form.draft,
            "encoded": self._encoded,
        }

    def read_files(self, start: int, stop: int, scratch: Scratch) -> Read:
        """Read and decode files."""
        del scratch
        return self._read_encoded(start, stop) if self._encoded else self._read_decoded(start, stop)

    @cached_property
    def _first(self) -> tuple[str, Pixels]:
        """The first image, decoded."""
        return self.first_readable(lambda path: (path, self._form.decode(_read_bytes(path), path)))

    @cached_property
    def _settled(self) -> ImageForm:
        """What images become, with the mode that is settled by the first."""
        if self._form.mode is not None:
            return self._form
        if self._form.size is None:
            return replace(self._form, mode="rgb" if self._first[1].ndim == 3 else "grey")
        n_channels = self.first_readable(_head).n_channels  # decoded it may take more memory than there is to be
        return replace(self._form, mode="rgb" if n_channels > 2 else "grey")

    @property
    def _shape(self) -> tuple[int, ...]:
        return self._settled.shape or self._first[1].shape

    @cached_property
    def _decoding_nbytes(self) -> int | NDArray[np.int64]:
        form = self._settled
        if form.size is None:
            height, width = self._shape[:2]
            return form.needed_nbytes(ImageHead("jpeg", height, width, 3, True)) + int(self.sizes.max())
        found = self.sizes.copy()
        for number, path in enumerate(self.paths):
            found[number] += form.needed_nbytes(_head_beginning(path))
        return found

    def _read_decoded(self, start: int, stop: int) -> Read:
        shape, form = self._shape, self._settled
        rows = fresh_rows((stop - start, *shape), np.dtype(np.uint8))

        def read(path: str, at: int) -> None:
            data = _read_bytes(path)
            if form.size is None:
                head = measured(head_of(data, path), data)
                if head.n_pixels and head.n_pixels != shape[0] * shape[1]:  # perhaps many more than there is memory for
                    raise differs(path, (head.height, head.width, *shape[2:]))
            image = form.decode(data, path)
            if image.shape != shape:
                raise differs(path, image.shape)
            rows[at] = image

        def differs(path: str, other: tuple[int, ...]) -> StoreFormatError:
            return StoreFormatError(
                f"{path} must have the shape of {self._first[0]}, {shape}, and has {other}; "
                "give all images one with size=(height, width) (-o size=[HEIGHT,WIDTH])"
            )

        kept, skipped = self.each(start, stop, read)
        return Read(rows[: len(rows) - len(skipped)], kept, skipped)

    def _read_encoded(self, start: int, stop: int) -> Read:
        room = fresh_rows((int(self.sizes[start:stop].sum()),), np.dtype(np.uint8))
        ends = [0]

        def read(path: str, at: int) -> None:
            data = _read_bytes(path)
            head_of(data, path)
            end = ends[at] + len(data)
            if end > len(room):
                raise StoreFormatError(f"{path} has changed since its size was looked at; convert again later")
            room[ends[at] : end] = np.frombuffer(data, np.uint8)
            ends.append(end)

        kept, skipped = self.each(start, stop, read)
        return Read(RaggedRows(room[: ends[-1]], np.array(ends, np.int64)), kept, skipped)

    def _read_columns(self) -> Folders:
        assert self._columns is not None
        labels = splits = None
        if self._label_column is not None:
            labels = encode_labels(typed(self._columns[self._label_column]))
        if self._split_column is not None:
            given = self._columns[self._split_column]
            splits = encode_splits([name or None for name in given], list(dict.fromkeys(filter(None, given))))
        return Folders(labels, splits)


def _read_bytes(path: str, most: int | None = None) -> bytes:
    """Return a file, or the beginning of it: by half of the system calls that an open file object makes."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            wanted = os.fstat(file).st_size if most is None else most
            data = os.read(file, wanted)
            while most is None and len(data) < wanted and (more := os.read(file, wanted - len(data))):
                data += more  # a read ends at 2 GiB
        finally:
            os.close(file)
    except OSError as exc:
        raise StoreFormatError(f"{path} cannot be read: {exc}") from exc
    return data


def _head(path: str) -> ImageHead:
    """Return what an image is."""
    data = _read_bytes(path)
    return measured(head_of(data, path), data)


def _head_beginning(path: str) -> ImageHead:
    """Return what an image is, by as much of its file as that takes; of those that cannot be read, nothing."""
    for most in (_HEAD_NBYTES, 64 * _HEAD_NBYTES, None):
        with suppress(NotEnoughError, StoreFormatError):  # reading it whole will tell, or leave it out
            return measured(image_head(_read_bytes(path, most)) or ImageHead("other"), path)
    return ImageHead("other")

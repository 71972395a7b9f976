"""Image files in batches, decoded while loading: for fields whose rows are the bytes of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oocload.chunks.images import Fit, ImageForm, Mode, Pixels
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.loader.padding import Ragged


@dataclass(frozen=True, slots=True)
class DecodeImages:
    """Decode the images of each batch; pass it as ``Loader(transform=..., transform_workers="threads")``.

    Decoding holds no GIL, so that threads are as fast as processes, and need no copies.

    Parameters
    ----------
    field
        Which field holds files, where batches, or their ``x``, are dicts. Else it is the batch, or the ``x`` of it.
    size, fit, mode, orient, draft
        As for `oocload.sources.ImageFolderSource`. Without ``size`` all images of a batch must have one shape.

    Raises
    ------
    InvalidArgumentError
        If one breaks its rule; when it is called, if a batch has no files in that place.
    StoreFormatError
        When it is called: if an image cannot be read, or has another shape than the first of its batch.

    Examples
    --------
    >>> import imagecodecs, numpy as np, oocload
    >>> from pathlib import Path
    >>> for i in range(20):
    ...     Path(f"files/{i % 2}").mkdir(parents=True, exist_ok=True)
    ...     pixels = np.full((32, 40, 3), i, "uint8")
    ...     _ = Path(f"files/{i % 2}/{i}.png").write_bytes(imagecodecs.png_encode(pixels))
    >>> _ = oocload.convert(oocload.sources.ImageFolderSource("files", encoded=True), "files.h5")
    >>> decode = oocload.DecodeImages()
    >>> loader = oocload.Loader("files.h5", 10, x="x", y="y", transform=decode, transform_workers="threads")
    >>> x, y = next(iter(loader))
    >>> x.shape, x.dtype
    ((10, 32, 40, 3), dtype('uint8'))

    """

    field: str = "x"
    size: tuple[int, int] | None = None
    fit: Fit = "resize"
    mode: Mode = "rgb"
    orient: bool = True
    draft: bool = True

    def __post_init__(self) -> None:
        if self.mode is None:
            raise InvalidArgumentError("mode must be 'rgb' or 'grey', got None; batches must not differ")
        object.__setattr__(self, "size", self._form.size)

    def __call__(self, batch: Any) -> Any:
        """Return a batch with images, uint8 of shape (rows, height, width, 3) or (rows, height, width), as files were.

        Thread-safe. What else is in the batch is not copied.
        """
        if isinstance(batch, Ragged):
            return self._decoded(batch)
        if isinstance(batch, Mapping) and self.field in batch:
            return {**batch, self.field: self._decoded(batch[self.field])}
        if isinstance(batch, tuple) and batch:
            return (self(batch[0]), *batch[1:])
        found = f"a dict of {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else type(batch).__name__
        raise InvalidArgumentError(
            f"field must be one whose rows are files, got {self.field!r} of {found}; name it as DecodeImages(field=...)"
        )

    @property
    def _form(self) -> ImageForm:
        return ImageForm(self.size, self.fit, self.mode, self.orient, self.draft)

    def _decoded(self, files: Any) -> Pixels:
        if not isinstance(files, Ragged) or files.values.dtype != np.uint8 or files.values.ndim != 1:
            raise InvalidArgumentError(
                f"field {self.field!r} must have the bytes of files as ragged rows of uint8, got {_shown(files)}; "
                "DecodeImages decodes what ImageFolderSource(..., encoded=True) stores"
            )
        form = self._form
        images: Pixels | None = None
        for row, (start, stop) in enumerate(zip(files.offsets[:-1], files.offsets[1:], strict=True)):
            image = form.decode(files.values[start:stop].tobytes(), f"image {row} of the batch")
            if images is None:
                images = np.empty((files.n_rows, *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise StoreFormatError(
                    f"image {row} of the batch must have the shape of the first, {images.shape[1:]}, and has "
                    f"{image.shape}; give all one with DecodeImages(size=(height, width))"
                )
            images[row] = image
        return np.empty((0, *form.shape), np.uint8) if images is None else images


def _shown(value: Any) -> str:
    values = value.values if isinstance(value, Ragged) else value
    return f"{type(value).__name__} of {getattr(values, 'dtype', 'objects')}"


__all__ = ["DecodeImages"]

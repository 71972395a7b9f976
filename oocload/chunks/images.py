"""Image files to arrays of one shape: JPEG, PNG and WebP by imagecodecs, others by Pillow, which also resizes.

Both use the same libraries, and give the same bytes; imagecodecs takes a half to an eighth of the time, without the GIL
(benchmarks/source_images.py).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from oocload.chunks.image_head import ImageHead, NotEnoughError, image_head, is_cut_off, orientation_of
from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.optional import require
from oocload.units import true_or_false, whole_number

Mode = Literal["rgb", "grey"]
Fit = Literal["resize", "crop", "pad"]
Pixels = NDArray[np.uint8]

_DRAFT_SCALES = (8, 4, 2)
_DRAFT_TIMES = 2  # of the size that is asked for, that a draft has at least
_PIXEL_NBYTES = 12  # decoded, as Pillow holds it, and what a codec takes beside
_COEFFICIENT_NBYTES = 2
_GREYS = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I", "F")  # of Pillow's modes
_ORIENTATION = 0x0112
_RED, _GREEN, _BLUE = 19595, 38470, 7471  # ITU-R 601-2 luma, as Pillow has it: of 65536

# What brings an image upright, by the orientation that Exif names.
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True, slots=True)
class ImageForm:
    """How image files become arrays.

    Parameters
    ----------
    size
        Height and width; None leaves them as they are.
    fit
        How an image gets that size: ``"resize"`` scales both sides, whatever its proportions; ``"crop"`` scales it
        until it covers the size, and takes the middle; ``"pad"`` scales it until it fits in, and puts it in the middle
        of black. Scaling is bilinear over all pixels that a new one stands for (Pillow's ``BILINEAR``).
    mode
        ``"rgb"``: (height, width, 3); ``"grey"``: (height, width), of colours ITU-R 601-2 luma. None keeps grey images
        grey, and makes all others RGB.
    orient
        Whether images are turned upright, as Exif says that the camera was held.
    draft
        Whether JPEG images of at least four times ``size`` are decoded at a half, quarter or eighth of their size,
        still at least twice ``size``: several times faster.

    Raises
    ------
    InvalidArgumentError
        If one breaks its rule.

    """

    size: tuple[int, int] | None = None
    fit: Fit = "resize"
    mode: Mode | None = None
    orient: bool = True
    draft: bool = True

    def __post_init__(self) -> None:
        if self.size is not None:
            if not isinstance(self.size, tuple | list) or len(self.size) != 2:
                raise InvalidArgumentError(
                    f"size must be (height, width) or None, got {self.size!r}; pass such as (64, 64) (-o size=[64,64])"
                )
            height, width = (whole_number("size", n, 1) for n in self.size)
            object.__setattr__(self, "size", (height, width))
        if self.fit not in get_args(Fit):
            raise InvalidArgumentError(f"fit must be 'resize', 'crop' or 'pad', got {self.fit!r}")
        for name in ("orient", "draft"):
            true_or_false(name, getattr(self, name))
        if self.mode is not None and self.mode not in get_args(Mode):
            raise InvalidArgumentError(f"mode must be 'rgb', 'grey' or None, got {self.mode!r}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of each image; ``()`` where that is not known."""
        if self.size is None or self.mode is None:
            return ()
        return (*self.size, 3) if self.mode == "rgb" else self.size

    def decode(self, data: bytes, name: str) -> Pixels:
        """Return an image. Thread-safe; holds the GIL for some microseconds.

        Alpha is left out, as by Pillow's ``convert``; of 16 bits the upper 8 are kept; of animations the first image.

        Parameters
        ----------
        data
            The file.
        name
            Of it, in errors.

        Raises
        ------
        StoreFormatError
            If it cannot be read.
        MissingPackageError
            If it needs Pillow, which is not installed.

        """
        head = head_of(data, name)
        if is_cut_off(head, data):
            raise StoreFormatError(f"{name} is truncated: the file ends before the image; copy or write it again")
        scale = self._draft_scale(head)
        image = (
            _by_pillow(data, name, self.size if scale else None, self.orient) if scale or not _is_fast(head) else None
        )
        if image is None:
            image = _by_imagecodecs(head, data, name)
            if self.orient and (orientation := orientation_of(head, data)) > 1:
                image = _UPRIGHT[orientation](image)
        return self._fitted(_in_mode(image, self.mode))

    def needed_nbytes(self, head: ImageHead) -> int:
        """Return about what decoding an image takes, beside the file and the result."""
        scale = self._draft_scale(head) or 1
        coefficients = _COEFFICIENT_NBYTES * head.n_channels * head.n_pixels if head.progressive else 0
        return _PIXEL_NBYTES * head.n_pixels // scale**2 + coefficients

    def _draft_scale(self, head: ImageHead) -> int:
        """Return the part of its size at which an image is decoded, 0 for all of it."""
        if not self.draft or self.size is None or head.kind != "jpeg":
            return 0
        sides = (head.height, head.width) if head.orientation < 5 or not self.orient else (head.width, head.height)
        most = min(side // (_DRAFT_TIMES * wanted) for side, wanted in zip(sides, self.size, strict=True))
        return next((scale for scale in _DRAFT_SCALES if scale <= most), 0)

    def _fitted(self, image: Pixels) -> Pixels:
        if self.size is None or image.shape[:2] == self.size:
            return image
        pillow = require("PIL.Image", "images", "resizing images")
        given = pillow.fromarray(np.ascontiguousarray(image))
        (height, width), (wanted_height, wanted_width) = image.shape[:2], self.size
        box = (0.0, 0.0, float(width), float(height))
        if self.fit == "crop":
            scale = max(wanted_height / height, wanted_width / width)
            left, top = (width - wanted_width / scale) / 2, (height - wanted_height / scale) / 2
            box = (max(0.0, left), max(0.0, top), min(width, width - left), min(height, height - top))
        if self.fit != "pad":
            scaled = given.resize((wanted_width, wanted_height), pillow.Resampling.BILINEAR, box)
            return np.asarray(scaled)
        scale = min(wanted_height / height, wanted_width / width)
        inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
        padded = np.zeros((*self.size, *image.shape[2:]), np.uint8)
        top, left = (wanted_height - inner_height) // 2, (wanted_width - inner_width) // 2
        padded[top : top + inner_height, left : left + inner_width] = np.asarray(
            given.resize((inner_width, inner_height), pillow.Resampling.BILINEAR)
        )
        return padded


def head_of(data: bytes, name: str) -> ImageHead:
    """Return what a whole file is.

    Raises
    ------
    StoreFormatError
        If it is no image.

    """
    try:
        head = image_head(data)
    except NotEnoughError as exc:
        raise StoreFormatError(f"{name} is truncated: it ends before it says what image it is") from exc
    if head is None:
        raise StoreFormatError(f"{name} must be an image, and begins with {data[:8]!r}")
    return head


def measured(head: ImageHead, file: str | bytes) -> ImageHead:
    """Return what an image is, with size and channels as Pillow tells them of formats that only it knows.

    Nothing is decoded. Where Pillow cannot tell either, decoding will.
    """
    if head.kind != "other":
        return head
    pillow = require("PIL.Image", "images", "decoding images other than JPEG, PNG and WebP")
    try:
        with pillow.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            n_channels = 1 if image.mode in _GREYS else 3
            return head._replace(height=image.height, width=image.width, n_channels=n_channels)
    except Exception:  # a damaged file is an error of as many kinds as Pillow has decoders
        return head


def _is_fast(head: ImageHead) -> bool:
    """Whether imagecodecs decodes it to what it shows: all but colours of printing, which need converting."""
    return head.kind in ("png", "webp") or (head.kind == "jpeg" and head.n_channels in (1, 3))


def _by_imagecodecs(head: ImageHead, data: bytes, name: str) -> NDArray[Any]:
    first_frame = partial(imagecodecs.webp_decode, index=0)  # newer versions give all of them otherwise
    decode = {"jpeg": imagecodecs.jpeg8_decode, "png": imagecodecs.png_decode, "webp": first_frame}
    try:
        image: NDArray[Any] = decode[head.kind](data)
    except (RuntimeError, ValueError) as exc:
        raise StoreFormatError(f"{name} cannot be decoded: {exc}") from exc
    return image


def _by_pillow(data: bytes, name: str, draft: tuple[int, int] | None, orient: bool) -> NDArray[Any]:
    pillow = require("PIL.Image", "images", "decoding images other than JPEG, PNG and WebP")
    ops = require("PIL.ImageOps", "images", "decoding images other than JPEG, PNG and WebP")
    try:
        with pillow.open(io.BytesIO(data)) as image:
            if draft:
                height, width = (_DRAFT_TIMES * n for n in draft)
                lies = orient and image.getexif().get(_ORIENTATION, 1) > 4
                image.draft(image.mode, (height, width) if lies else (width, height))
            upright = ops.exif_transpose(image) if orient else image
            if upright.mode in ("1", "LA"):
                upright = upright.convert("L")
            elif upright.mode not in ("RGB", *_GREYS):
                upright = upright.convert("RGB")
            found = np.asarray(upright)
    except Exception as exc:  # a damaged file is an error of as many kinds as Pillow has decoders
        raise StoreFormatError(f"{name} cannot be decoded: {exc}") from exc
    if found.dtype.itemsize > 2:
        raise StoreFormatError(f"{name} must have 8 or 16 bits a channel, and has {found.dtype}; save it as .npy")
    return found


def _in_mode(image: NDArray[Any], mode: Mode | None) -> Pixels:
    """Return an image in 8 bits a channel, without alpha, grey or RGB."""
    if image.dtype.itemsize > 1:
        image = (image >> 8).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] in (1, 2):
        image = image[:, :, 0]
    elif image.ndim == 3 and image.shape[2] == 4:
        image = image[:, :, :3]
    if image.ndim == 2 and mode == "rgb":
        return np.repeat(image[:, :, None], 3, axis=2)
    if image.ndim == 3 and mode == "grey":
        luma = image[:, :, 0] * np.uint32(_RED)
        luma += image[:, :, 1] * np.uint32(_GREEN)
        luma += image[:, :, 2] * np.uint32(_BLUE)
        luma += np.uint32(0x8000)
        return (luma >> np.uint32(16)).astype(np.uint8)
    return image

"""Decoded images are those of Pillow, of every format and mode; sizes and orientation as Pillow makes them."""

import contextlib
import io
from typing import Any
from unittest import mock

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from oocload import optional
from oocload.chunks import images
from oocload.chunks.image_head import ImageHead, NotEnoughError, image_head
from oocload.chunks.images import ImageForm
from oocload.errors import InvalidArgumentError, MissingPackageError, StoreFormatError

RNG = np.random.default_rng(0)
BILINEAR = Image.Resampling.BILINEAR


def smooth(height: int, width: int) -> Image.Image:
    """Return what resembles a photograph."""
    coarse = RNG.normal(128, 50, (height // 8 + 1, width // 8 + 1, 3)).clip(0, 255).astype("u1")
    fine = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((fine + RNG.normal(0, 5, fine.shape)).clip(0, 255).astype("u1"))


IMAGE = smooth(61, 83)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert(mode))


CASES = [
    ("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("P", "PNG"),
    ("L", "JPEG"), ("RGB", "JPEG"), ("CMYK", "JPEG"), ("YCbCr", "JPEG"),
    ("L", "WEBP"), ("RGB", "WEBP"), ("RGBA", "WEBP"), ("P", "WEBP"),
    ("RGB", "BMP"), ("L", "BMP"), ("P", "GIF"), ("L", "GIF"),
    ("1", "TIFF"), ("L", "TIFF"), ("RGB", "TIFF"), ("RGBA", "TIFF"), ("CMYK", "TIFF"), ("L", "PPM"), ("RGB", "PPM"),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "kind"), CASES)
def test_as_pillow_has_it(mode: str, kind: str) -> None:
    data = encoded(IMAGE.convert(mode), kind)
    assert np.array_equal(ImageForm(mode="rgb").decode(data, "a"), pillow(data))
    assert np.array_equal(ImageForm(mode="grey").decode(data, "a"), pillow(data, "L"))
    is_grey = Image.open(io.BytesIO(data)).mode in ("1", "L", "LA")
    assert ImageForm().decode(data, "a").shape == ((61, 83) if is_grey else (61, 83, 3))
    head = image_head(data)
    assert head is not None
    assert (head.height, head.width) == ((0, 0) if head.kind == "other" else (61, 83))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True}),
        ("JPEG", {"subsampling": 0, "quality": 95}),
        ("JPEG", {"keep_rgb": True}),
        ("JPEG", {"comment": "x" * 9000}),
        ("PNG", {"transparency": (1, 2, 3)}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"save_all": True, "append_images": [ImageOps.mirror(IMAGE)]}),
        ("PNG", {"save_all": True, "append_images": [ImageOps.mirror(IMAGE)]}),
        ("GIF", {"save_all": True, "append_images": [ImageOps.mirror(IMAGE)]}),
    ],
)
def test_kinds_of_kinds(kind: str, options: Any) -> None:
    data = encoded(IMAGE, kind, **options)
    assert np.array_equal(ImageForm().decode(data, "a"), pillow(data))
    head = image_head(data)
    assert head is not None
    assert head.progressive == ("progressive" in options)
    if kind == "WEBP":
        assert (head.height, head.width) == (61, 83)


def test_sixteen_bits() -> None:
    """Pillow clips grey ones; the upper bits are meant."""
    deep = RNG.integers(0, 2**16, (7, 5, 3), "u2")
    grey = deep[..., 0].copy()
    for data in (imagecodecs.png_encode(grey), encoded(Image.fromarray(grey), "TIFF")):
        assert np.array_equal(ImageForm().decode(data, "a"), grey >> 8)
    assert np.array_equal(ImageForm().decode(imagecodecs.png_encode(deep), "a"), deep >> 8)
    assert np.array_equal(ImageForm().decode(imagecodecs.png_encode(deep), "a"), pillow(imagecodecs.png_encode(deep)))
    for dtype in ("f4", "i4"):
        with pytest.raises(StoreFormatError, match=r"a must have 8 or 16 bits a channel, and has (float|int)32"):
            ImageForm().decode(encoded(Image.fromarray(grey.astype(dtype)), "TIFF"), "a")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0110] = "a camera"
    exif[0x0112] = orientation
    data = encoded(IMAGE, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(ImageForm().decode(data, "a"), upright)
    assert np.array_equal(ImageForm(orient=False).decode(data, "a"), pillow(data))


def test_damaged_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(IMAGE, "JPEG", exif=exif)
    at = data.index(b"Exif\0\0") + 6
    for block in (b"XX", b"II*\0\xff\xff\xff\xff"):
        damaged = data[:at] + block + data[at + len(block) :]
        assert np.array_equal(ImageForm().decode(damaged, "a"), pillow(data))


class TestSize:
    @pytest.mark.parametrize("size", [(32, 32), (61, 83), (100, 20), (7, 90), (61, 40), (223, 224)])
    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_fits(self, size: tuple[int, int], mode: str) -> None:
        image = IMAGE.convert(mode)
        data, sides = encoded(image, "PNG"), size[::-1]
        assert np.array_equal(ImageForm(size).decode(data, "a"), image.resize(sides, BILINEAR))
        assert np.array_equal(ImageForm(size, "crop").decode(data, "a"), ImageOps.fit(image, sides, BILINEAR))
        padded = ImageForm(size, "pad").decode(data, "a")
        inner = np.asarray(ImageOps.contain(image, sides, BILINEAR))
        assert padded.shape[:2] == size
        top, left = ((a - b) // 2 for a, b in zip(size, inner.shape, strict=False))
        assert np.array_equal(padded[top : top + len(inner), left : left + inner.shape[1]], inner)
        assert int(padded.sum()) == int(inner.sum())

    @pytest.mark.parametrize(("side", "scale"), [(20, 8), (40, 4), (79, 2), (80, 2), (81, 0)])
    def test_drafts(self, side: int, scale: int) -> None:
        """Nearly the same, from an eighth to a half of the pixels."""
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(smooth(320, 400), "JPEG", quality=92, exif=exif)
        form = ImageForm((side * 5 // 4, side))
        head = image_head(data)
        assert head is not None
        exact = ImageForm((side * 5 // 4, side), draft=False)
        assert form.needed_nbytes(head) == exact.needed_nbytes(head) // (scale or 1) ** 2
        with Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            assert np.array_equal(exact.decode(data, "a"), upright.resize((side, side * 5 // 4), BILINEAR))
        difference = np.abs(form.decode(data, "a").astype(int) - exact.decode(data, "a"))
        assert difference.mean() < 2
        assert bool(difference.any()) == bool(scale)

    def test_progressive_ones_take_more(self) -> None:
        head = ImageHead("jpeg", 100, 100, 3, progressive=True)
        assert ImageForm().needed_nbytes(head) == ImageForm().needed_nbytes(head._replace(progressive=False)) + 60_000


JPEG, PNG, WEBP = (encoded(IMAGE, kind) for kind in ("JPEG", "PNG", "WEBP"))


class TestDamaged:
    @pytest.mark.parametrize("data", [JPEG, PNG, WEBP, encoded(IMAGE, "GIF"), encoded(IMAGE, "TIFF")])
    def test_cut_off(self, data: bytes) -> None:
        for n_bytes in (3, 30, len(data) // 2, len(data) * 9 // 10):
            with pytest.raises(StoreFormatError, match=r"^cat/1.x (is truncated|cannot be decoded|must be an image)"):
                ImageForm().decode(data[:n_bytes], "cat/1.x")

    def test_jpeg_without_an_end(self) -> None:
        """Of which libjpeg makes up the rest."""
        assert imagecodecs.jpeg8_decode(JPEG[:-400]).shape == (61, 83, 3)
        with pytest.raises(StoreFormatError, match=r"^a is truncated: the file ends before the image; copy or write"):
            ImageForm().decode(JPEG[:-400], "a")
        assert np.array_equal(ImageForm().decode(JPEG + b"trailer", "a"), pillow(JPEG))

    @pytest.mark.parametrize("data", [PNG, WEBP])
    def test_flipped(self, data: bytes) -> None:
        at = len(data) // 2
        for damaged in (data[:at] + bytes([data[at] ^ 255]) * 9 + data[at + 9 :],) if data is PNG else (data[:20],):
            with pytest.raises(StoreFormatError, match=r"^a (cannot be decoded|is truncated)"):
                ImageForm().decode(damaged, "a")

    def test_no_image(self) -> None:
        with pytest.raises(StoreFormatError, match=r"a must be an image, and begins with b'text,mos'"):
            ImageForm().decode(b"text,mostly", "a")
        with pytest.raises(StoreFormatError, match=r"a must be an image, and begins with b''"):
            ImageForm().decode(b"", "a")

    def test_heads_that_are_too_short(self) -> None:
        for data in (JPEG, PNG, WEBP):
            for n_bytes in (8, 12, 15):
                with contextlib.suppress(NotEnoughError):
                    assert image_head(data[:n_bytes]) is None

    def test_jpeg_with_rubbish_between(self) -> None:
        rubbish = JPEG[:2] + b"\0" + JPEG[2:]
        assert image_head(rubbish) == ImageHead("other")
        filled = JPEG[:2] + b"\xff\xff" + JPEG[2:]
        assert np.array_equal(ImageForm().decode(filled, "a"), pillow(JPEG))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 224}, r"size must be \(height, width\) or None, got 224"),
        ({"size": (1, 2, 3)}, r"size must be \(height, width\) or None, got \(1, 2, 3\)"),
        ({"size": (0, 2)}, r"size must be .*at least 1, got 0"),
        ({"fit": "stretch"}, r"fit must be 'resize', 'crop' or 'pad', got 'stretch'"),
        ({"mode": "L"}, r"mode must be 'rgb', 'grey' or None, got 'L'"),
    ],
)
def test_options(options: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        ImageForm(**options)


def test_without_pillow() -> None:
    def require(module: str, extra: str, purpose: str) -> Any:
        return optional.require("no_such_package", extra, purpose)

    with mock.patch.object(images, "require", require):
        assert ImageForm().decode(PNG, "a").shape == (61, 83, 3)
        with pytest.raises(MissingPackageError, match=r"resizing images needs .* with its extra 'images'\)"):
            ImageForm((3, 3)).decode(PNG, "a")
        with pytest.raises(MissingPackageError, match=r"decoding images other than JPEG, PNG and WebP needs"):
            ImageForm().decode(encoded(IMAGE, "BMP"), "a")

"""What the first bytes of an image file say: format, height and width, and how the camera was held.

Formats: ITU-T T.81 annex B (JPEG markers), PNG specification 5.3 and 11.2.2, RFC 9649 (WebP), Exif 2.32, 4.6.4
(Orientation). Decoding is done elsewhere; here only as much is read as says what it will take.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

ImageKind = Literal["jpeg", "png", "webp", "other"]

_START_OF_FRAME = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_EXIF_APP, _END_OF_IMAGE = 0xE1, b"\xff\xd9"
_ORIENTATION = 0x0112
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_MAGIC = (b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P4", b"P5", b"P6")


class ImageHead(NamedTuple):
    """What an image is.

    Attributes
    ----------
    kind
        Format; "other" for those that only Pillow knows.
    height, width
        Pixels, as stored; 0 of "other" until Pillow has told.
    n_channels
        As stored: of PNG with alpha, 2 and 4; of palettes 3. 0 where that is not known.
    progressive
        Whether all of it must be held before any is decoded.
    at
        Where the description ends, of JPEG.
    orientation
        1 to 8, of JPEG; 1 is upright.

    """

    kind: ImageKind
    height: int = 0
    width: int = 0
    n_channels: int = 0
    progressive: bool = False
    at: int = 0
    orientation: int = 1

    @property
    def n_pixels(self) -> int:
        """Height times width."""
        return self.height * self.width


class NotEnoughError(Exception):
    """More bytes are needed to tell."""


def image_head(data: bytes) -> ImageHead | None:
    """Return what a file is, by its beginning; None where that is no image.

    Raises
    ------
    NotEnoughError
        If the description does not end within these bytes.

    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _jpeg_head(data)
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height, _, colours = struct.unpack_from(">IIBB", data, 16)
            return ImageHead("png", height, width, _PNG_CHANNELS.get(colours, 0))
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return ImageHead("webp", *_webp_size(data), 3)
    except (struct.error, IndexError) as exc:
        raise NotEnoughError from exc
    return ImageHead("other") if data.startswith(_MAGIC) else None


def orientation_of(head: ImageHead, data: bytes) -> int:
    """Return the orientation that a whole file asks for: 1 to 8, 1 where it says nothing."""
    if head.kind == "png":
        at = data.find(b"eXIf")
        return _exif_orientation(data[at + 4 :]) if at > 0 else 1
    if head.kind == "webp":
        at = data.find(b"EXIF") if data[12:16] == b"VP8X" and data[20] & 8 else -1
        return _exif_orientation(data[at + 8 :].removeprefix(b"Exif\0\0")) if at > 0 else 1
    return head.orientation


def is_cut_off(head: ImageHead, data: bytes) -> bool:
    """Whether a whole JPEG file ends before its image does; libjpeg would make up the rest."""
    return head.kind == "jpeg" and data.rfind(_END_OF_IMAGE, head.at) < 0


def _jpeg_head(data: bytes) -> ImageHead:
    """Go from marker to marker up to the start of the frame."""
    at, orientation = 2, 1
    while True:
        if data[at] != 0xFF:
            return ImageHead("other")
        while data[at + 1] == 0xFF:  # any number of these may stand before a marker
            at += 1
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _START_OF_FRAME:
            height, width, n_channels = struct.unpack_from(">HHB", data, at + 5)
            return ImageHead("jpeg", height, width, n_channels, marker in _PROGRESSIVE, at + 2 + length, orientation)
        if marker == _EXIF_APP and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 10 : at + 2 + length])
        at += 2 + length


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return height and width of the three kinds of WebP."""
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", data, 26))
    return height, width


def _exif_orientation(block: bytes) -> int:
    """Return what the first directory of an Exif block says, 1 where that is nothing or damaged."""
    try:
        order = {b"II": "<", b"MM": ">"}[block[:2]]
        (at,) = struct.unpack_from(f"{order}I", block, 4)
        (n_entries,) = struct.unpack_from(f"{order}H", block, at)
        for entry in range(n_entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, at + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except (KeyError, struct.error):
        pass  # no camera's words are no reason to refuse the image
    return 1

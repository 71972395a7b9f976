"""What a file of a WebDataset sample holds, by its ending."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import StoreFormatError

_NUMBERS = {"cls", "cls2", "class", "count", "index", "inx"}
_TEXTS = {"txt", "text", "transcript"}
_IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "ppm", "pgm", "pbm", "tif", "tiff", "jp2", "jxl", "avif"}
_LABEL = "cls"


def split_name(name: str) -> tuple[str, str]:
    """Return the key of the sample and the ending, in small letters: what follows the first dot of the file's name."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending.lower() if stem else ""


def field_names(files: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return field → endings, of the files of a sample: the only image, or else array, is ``x``, the label ``y``."""
    endings = sorted(files)
    images = [e for e in endings if _kind(e) in _IMAGES]
    arrays = [e for e in endings if _kind(e) == "npy"]
    main = images[0] if len(images) == 1 else arrays[0] if len(arrays) == 1 and not images else None
    names = {main: "x", _LABEL: "y", "id": "id.id"}  # `id` is the key
    return {names.get(e, e): tuple(sorted(_IMAGES)) if e == main and e in _IMAGES else (e,) for e in endings}


def has_image(endings: Iterable[str]) -> bool:
    """Whether files of all these endings are images."""
    return all(_kind(ending) in _IMAGES for ending in endings)


def decoded(field: str, ending: str, data: bytes, where: str) -> dict[str, Any]:
    """Return field → value of a file; of JSON there may be several.

    Raises
    ------
    StoreFormatError
        If it is damaged, or something else than its ending says.

    """
    kind = _kind(ending)
    try:
        if kind in _NUMBERS:
            return {field: int(data)}
        if kind in _TEXTS:
            return {field: data.decode("utf-8")}
        if kind == "npy":
            return {field: _array(data)}
        if kind == "json":
            return _fields_of(field, json.loads(data))
    except ValueError as exc:  # of int, UTF-8, NumPy and JSON alike
        wanted = "a whole number" if kind in _NUMBERS else f"a {kind} file"
        raise StoreFormatError(f"{where}: the file that ends in .{ending} must be {wanted}: {exc}") from exc
    return {field: data}


def _kind(ending: str) -> str:
    return ending.rpartition(".")[2]


def _array(data: bytes) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except EOFError as exc:
        raise ValueError(str(exc)) from exc
    return array


def _fields_of(field: str, value: Any) -> dict[str, Any]:
    """Return the values of an object by field; what is neither number, list of numbers nor text, as JSON."""
    if not isinstance(value, dict) or not value:
        return {field: _plain(value)}
    return {f"{field}/{key}": _plain(each) for key, each in value.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, list) and value and all(isinstance(each, int | float) for each in value):
        return value
    return json.dumps(value)

"""Folders of images: oocload beside the Pillow loop that people write, in one thread and in one for each core, for
`convert.py`.

The loop opens each image, converts it to RGB, resizes it, stacks as many as make a chunk, and assigns them to the
dataset. All write the same chunks by the same codec, labels too; sources are in the page cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
import zarr
from conversions import GZIP_LEVEL, ZSTD_LEVEL, Case
from PIL import Image
from zarr.codecs import ZstdCodec

import oocload

Size = tuple[int, int]
Load = Callable[[Path], np.ndarray]

SIZE: Size = (224, 224)
SMALL: Size = (32, 32)  # as they are stored
N_PHOTOGRAPHS, N_SMALL, QUICK = 600, 8000, 40
_CHUNK_NBYTES = 2**19


def write_photographs(folder: Path, n_images: int) -> np.ndarray:
    """Write JPEG images of about 375 by 500 in two classes; return what Pillow makes of them."""
    rng = np.random.default_rng(0)
    for number in range(n_images):
        height, width = (int(n) for n in rng.integers((340, 460), (410, 540)))
        _write(folder / "photographs", number, n_images, _smooth(rng, height, width), "jpg", quality=90)
    return np.stack([_load(path, SIZE) for path in _paths(folder / "photographs")])


def write_small(folder: Path, n_images: int) -> np.ndarray:
    """Write small PNG images in two classes; return what Pillow makes of them."""
    rng = np.random.default_rng(0)
    for number in range(n_images):
        _write(folder / "small", number, n_images, _smooth(rng, *SMALL), "png")
    return np.stack([_load(path, SMALL) for path in _paths(folder / "small")])


def by_oocload(source: Path, target: Path, size: Size) -> None:
    zipped = target.suffix == ".h5"
    options: dict[str, Any] = {} if zipped else {"chunks_per_shard": 1}
    oocload.convert(
        oocload.sources.ImageFolderSource(source, size=size, mode="rgb"),
        target,
        codec="gzip" if zipped else "zstd",
        level=GZIP_LEVEL if zipped else ZSTD_LEVEL,
        chunk_rows=_chunk_rows(size),
        progress=False,
        **options,
    )


def by_pillow(source: Path, target: Path, size: Size, n_threads: int = 1) -> None:
    paths = _paths(source)
    classes = sorted({path.parent.name for path in paths})
    y = np.array([classes.index(path.parent.name) for path in paths])
    shape, chunks = (len(paths), *size, 3), (min(len(paths), _chunk_rows(size)), *size, 3)
    if target.suffix == ".h5":
        options: dict[str, Any] = {"compression": "gzip", "compression_opts": GZIP_LEVEL}
        with h5py.File(target, "w") as file:
            _fill(file.create_dataset("x", shape, "u1", chunks=chunks, **options), paths, size, n_threads)
            file["y"] = y
        return
    group = zarr.open_group(target, mode="w")
    zstd = ZstdCodec(level=ZSTD_LEVEL)
    _fill(group.create_array("x", shape=shape, dtype="u1", chunks=chunks, compressors=zstd), paths, size, n_threads)
    group.create_array("y", data=y)


def cases() -> dict[str, Case]:
    """Return question → its case."""

    def case(source: str, target: str, size: Size) -> Case:
        return Case(
            source,
            target,
            {
                "oocload": partial(by_oocload, size=size),
                "Pillow": partial(by_pillow, size=size),
                "Pillow, threads": partial(by_pillow, size=size, n_threads=machine.n_cores()),
            },
        )

    return {
        "photographs to HDF5 gzip": case("photographs", "out.h5", SIZE),
        "photographs to Zarr zstd": case("photographs", "out.zarr", SIZE),
        "small images to HDF5 gzip": case("small", "out.h5", SMALL),
        "small images to Zarr zstd": case("small", "out.zarr", SMALL),
    }


def _fill(x: Any, paths: list[Path], size: Size, n_threads: int) -> None:
    for start, rows in _stacks(paths, size, n_threads):
        x[start : start + len(rows)] = rows


def _stacks(paths: list[Path], size: Size, n_threads: int) -> Iterator[tuple[int, np.ndarray]]:
    load: Load = partial(_load, size=size)
    height = _chunk_rows(size)
    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, len(paths), height):
            some = paths[start : start + height]
            yield start, np.stack(list(map(load, some) if n_threads == 1 else pool.map(load, some)))


def _load(path: Path, size: Size) -> np.ndarray:
    with Image.open(path) as image:
        converted = image.convert("RGB")
        if converted.size != size[::-1]:
            converted = converted.resize(size[::-1], Image.Resampling.BILINEAR)
        return np.asarray(converted)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*"))


def _chunk_rows(size: Size) -> int:
    return max(1, _CHUNK_NBYTES // (size[0] * size[1] * 3))


def _smooth(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """Return what compresses about as a photograph does."""
    coarse = rng.normal(128, 50, (height // 16 + 2, width // 16 + 2, 3)).clip(0, 255).astype("u1")
    fine = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((fine + rng.normal(0, 3, fine.shape)).clip(0, 255).astype("u1"))


def _write(folder: Path, number: int, n_images: int, image: Image.Image, suffix: str, **options: Any) -> None:
    path = folder / str(2 * number // n_images) / f"{number:06d}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)

"""How much memory does a conversion take, under a ceiling? Each runs in a process of its own, which this file is too.

``python conversion_memory.py SOURCE FOLDER TARGET CEILING`` converts, and prints one line of JSON: the peak RSS, above
what the process had when everything was imported. A ceiling of 0 leaves it to oocload.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import machine
import numpy as np
from conversions import ZSTD_LEVEL, read_back, remove
from datasets import IMAGE_SHAPE
from footprint_stores import write_stores
from overheads import print_header, print_row

import oocload

MIB = 2**20
CEILINGS = (64 * MIB, 128 * MIB, 256 * MIB)
_ROW_NBYTES = 64 * 64 * 3
_N_ROWS, _QUICK_ROWS = 32_768, 256  # 384 MiB: more than any ceiling
_QUICK_SOURCES = ("npy",)
_TARGETS = ("out.h5", "out.zarr")
_BATCH_ROWS = 256

Result = dict[str, Any]
Source = Callable[[Path], Any]


def batches(folder: Path) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches as a program would make them."""
    for start in range(0, n_rows(folder), _BATCH_ROWS):
        yield {"x": read(folder, start)}


def dask_array(folder: Path) -> Any:
    import dask
    import dask.array

    shape = (_BATCH_ROWS, *IMAGE_SHAPE)
    blocks = [dask.delayed(read)(folder, start) for start in range(0, n_rows(folder), _BATCH_ROWS)]
    return dask.array.concatenate([dask.array.from_delayed(block, shape, "u1") for block in blocks])


def n_rows(folder: Path) -> int:
    return len(np.load(folder / "images.npy", mmap_mode="r"))


def read(folder: Path, start: int) -> np.ndarray:
    """Read a batch, not through a map of the file, whose pages would count."""
    header = (folder / "images.npy").stat().st_size - n_rows(folder) * _ROW_NBYTES
    rows = np.fromfile(folder / "images.npy", "u1", _BATCH_ROWS * _ROW_NBYTES, offset=header + start * _ROW_NBYTES)
    return rows.reshape(-1, *IMAGE_SHAPE)


def write_npy_folder(folder: Path) -> None:
    (folder / "samples").mkdir()
    for number, row in enumerate(_rows(folder)):
        np.save(folder / "samples" / f"{number}.npy", row)


def write_png_folder(folder: Path) -> None:
    import imagecodecs

    (folder / "pictures").mkdir()
    for number, row in enumerate(_rows(folder)):
        (folder / "pictures" / f"{number}.png").write_bytes(imagecodecs.png_encode(row, level=1))


def write_parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    tensors = pyarrow.fixed_shape_tensor(pyarrow.uint8(), IMAGE_SHAPE)
    with pyarrow.parquet.ParquetWriter(folder / "images.parquet", pyarrow.schema([("x", tensors)])) as writer:
        for start in range(0, n_rows(folder), _BATCH_ROWS):
            flat = pyarrow.array(read(folder, start).reshape(-1))
            lists = pyarrow.FixedSizeListArray.from_arrays(flat, _ROW_NBYTES)
            writer.write_table(pyarrow.table({"x": pyarrow.ExtensionArray.from_storage(tensors, lists)}))


def _rows(folder: Path) -> Iterator[np.ndarray]:
    for start in range(0, n_rows(folder), _BATCH_ROWS):
        yield from read(folder, start)


WRITTEN: dict[str, Callable[[Path], None]] = {
    "samples": write_npy_folder,
    "pictures": write_png_folder,
    "images.parquet": write_parquet,
}
SHUFFLED = "Zarr zstd, shuffled"
SOURCES: dict[str, Source] = {
    "npy": lambda folder: folder / "images.npy",
    "HDF5 gzip": lambda folder: folder / "images.h5",
    "Zarr zstd": lambda folder: folder / "images.zarr",
    "batches": batches,
    "dask": dask_array,
    "npy folder": lambda folder: folder / "samples",
    "PNG folder": lambda folder: oocload.sources.ImageFolderSource(folder / "pictures"),
    "Parquet": lambda folder: folder / "images.parquet",
    SHUFFLED: lambda folder: folder / "images.zarr",
}
TAKES_CEILING = "memory" in inspect.signature(oocload.convert).parameters


def measure_memory(folder: Path, quick: bool) -> list[Result]:
    """Convert each source to each target under each ceiling; print a table."""
    write_stores(folder, _QUICK_ROWS if quick else _N_ROWS, ["images.npy", "images.h5", "images.zarr"])
    for path, write in {} if quick else WRITTEN.items():
        write(folder)
        assert (folder / path).exists()
    ceilings = CEILINGS[: 1 if quick else None] if TAKES_CEILING else (0,)
    results = []
    print_header("source, target", "ceiling, MiB", "peak above imports, MiB", "of the ceiling", "within 110 % + 16 MiB")
    for name in _QUICK_SOURCES if quick else SOURCES:
        if name == "dask" and find_spec("dask") is None:
            continue
        for target in _TARGETS:
            for ceiling in ceilings:
                result = run(name, folder, folder / target, ceiling)
                results.append({"source": name, "target": target, "ceiling": ceiling, **result})
                print_row(f"{name}, {target}", f"{ceiling / MIB:.0f}", *shown(result, ceiling))
    for file in ("images.npy", "images.h5", "images.zarr", *WRITTEN):
        remove(folder / file)
    return results


def run(source: str, folder: Path, target: Path, ceiling: int) -> Result:
    """Convert in a process of its own, see that the result is right, and remove it."""
    command = [sys.executable, __file__, source, str(folder), str(target), str(ceiling)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        remove(target)
        return {"failed": done.stderr.strip().splitlines()[-1]}
    _check(folder / "images.npy", target, source == SHUFFLED)
    remove(target)
    result: Result = json.loads(done.stdout.splitlines()[-1])
    if ceiling:
        result["of_ceiling"] = result["peak_above_imports"] / ceiling
        result["within"] = result["peak_above_imports"] <= 1.1 * ceiling + 16 * MIB
    return result


def _check(source: Path, target: Path, is_shuffled: bool) -> None:
    rows, got = np.load(source, mmap_mode="r"), read_back(target)
    if is_shuffled:
        assert not np.array_equal(got, rows)
        assert sorted(map(crc32, got)) == sorted(map(crc32, rows))
    else:
        np.testing.assert_array_equal(got, rows)


def shown(result: Result, ceiling: int) -> list[str]:
    if "failed" in result:
        return [f"failed: {result['failed']}", "-", "-"]
    peak = f"{result['peak_above_imports'] / MIB:.0f}"
    return [peak, f"{result['of_ceiling']:.2f}", "yes" if result["within"] else "no"] if ceiling else [peak, "-", "-"]


def main() -> None:
    name, folder, target, ceiling = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    for module in filter(find_spec, ("dask", "pyarrow", "PIL")):
        import_module({"dask": "dask.array", "pyarrow": "pyarrow.parquet", "PIL": "PIL.Image"}[module])
    source = SOURCES[name](folder)
    warm_up(target)
    options: dict[str, Any] = {"memory": ceiling} if ceiling else {}
    if target.suffix == ".zarr":
        options["level"] = ZSTD_LEVEL
    imports = machine.status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far
    if name == SHUFFLED:
        options |= {"shuffle": True, "seed": 0}
    report = oocload.convert(source, target, progress=False, **options)
    peak = machine.status("VmHWM") - imports
    print(json.dumps({"rows": report.n_rows, "imports": imports, "peak_above_imports": peak}))


def warm_up(target: Path) -> None:
    """Convert a few rows, so that whatever is imported late is there."""
    few = target.with_name(f"few{target.suffix}")
    oocload.convert({"x": np.zeros((4, *IMAGE_SHAPE), "u1")}, few, progress=False)
    remove(few)


if __name__ == "__main__":
    main()

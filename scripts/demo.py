"""The main job, end to end, on real images that need no download.

scikit-learn's 1,797 handwritten digits are split by image into training and held-out ones. The training images are
augmented (shift, rotate, scale; seeded) and streamed into an HDF5 and a Zarr store of at least 1 GiB each. A small
convolutional network is then trained from each store under a memory ceiling of 128 MiB, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import oocload
from oocload.convert.stream import stored_nbytes

SIDE = 32
CEILING = "128 MiB"
SECONDS = 90.0
DEFAULT_ROWS = 1_600_000  # 1.5 GiB of images, over 1 GiB on disk after compression
PIECE_ROWS = 4096


def held_out_split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return (training images, training labels, held-out images, held-out labels), split by original image."""
    digits = load_digits()
    parts = train_test_split(digits.images, digits.target, test_size=0.2, random_state=0, stratify=digits.target)
    x_train, x_test, y_train, y_test = (np.asarray(p) for p in parts)
    return x_train.astype(np.float32), y_train, x_test.astype(np.float32), y_test


def resample(images: np.ndarray, angle: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return images of SIDE × SIDE uint8: each source image rotated, scaled and shifted, by bilinear sampling.

    Parameters
    ----------
    images
        Shape (n, 8, 8), values 0 to 16.
    angle
        Radians, shape (n,).
    scale
        1 keeps the size, shape (n,).
    shift
        In source pixels, shape (n, 2).

    """
    axis = (np.arange(SIDE, dtype=np.float32) + 0.5) * (8 / SIDE) - 4
    v, u = np.meshgrid(axis, axis, indexing="ij")
    cos, sin = (f(angle).astype(np.float32) / scale.astype(np.float32) for f in (np.cos, np.sin))
    rows = cos[:, None, None] * v - sin[:, None, None] * u + (3.5 + shift[:, 0, None, None].astype(np.float32))
    cols = sin[:, None, None] * v + cos[:, None, None] * u + (3.5 + shift[:, 1, None, None].astype(np.float32))
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2))).reshape(len(images), -1)
    rows, cols = np.clip(rows, -1, 8) + 1, np.clip(cols, -1, 8) + 1
    top, left = rows.astype(np.int32), cols.astype(np.int32)
    rows -= top
    cols -= left
    corner = (top * 11 + left).reshape(len(images), -1)

    def at(offset: int) -> np.ndarray:
        return np.take_along_axis(padded, corner + offset, axis=1).reshape(rows.shape)

    upper = at(0) * (1 - cols) + at(1) * cols
    lower = at(11) * (1 - cols) + at(12) * cols
    return ((upper * (1 - rows) + lower * rows) * (255 / 16)).astype(np.uint8)


def augmented(images: np.ndarray, labels: np.ndarray, n_rows: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield seeded augmented images and their labels, PIECE_ROWS at a time, made on all cores."""

    def piece(start: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([0, start])
        n = min(PIECE_ROWS, n_rows - start)
        pick = rng.integers(0, len(images), n)
        angle, scale = rng.uniform(-0.25, 0.25, n), rng.uniform(0.85, 1.15, n)
        return resample(images[pick], angle, scale, rng.uniform(-0.8, 0.8, (n, 2))), labels[pick]

    n_threads = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(n_threads) as pool:
        starts = range(0, n_rows, PIECE_ROWS)
        for i in range(0, len(starts), n_threads):
            yield from pool.map(piece, starts[i : i + n_threads])


def _bar(n_rows: int, what: str) -> tqdm:
    """Return a progress bar; in a log file it is a line now and then."""
    interval = 0.1 if sys.stderr.isatty() else 15
    return tqdm(total=n_rows, unit=" rows", unit_scale=True, desc=what, mininterval=interval)


def write_stores(paths: list[Path], n_rows: int) -> None:
    """Stream the augmented images into all stores at once."""
    x_train, y_train, _, _ = held_out_split()
    fields = {"x": ((SIDE, SIDE), "uint8"), "y": "int64"}
    first, second = (oocload.create(p, fields, overwrite=True) for p in paths)
    with first, second, _bar(n_rows, "writing both stores") as bar:
        for x, y in augmented(x_train, y_train, n_rows):
            first.append(x=x, y=y)
            second.append(x=x, y=y)
            bar.update(len(x))


def train(path: str) -> dict[str, float | str]:
    """Train a small network from one store; runs in a process of its own, so that its memory can be told apart."""
    import keras

    class StopAfter(keras.callbacks.Callback):
        """Ends training when its time is up."""

        def on_train_begin(self, logs: object = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if time.perf_counter() - self.began > SECONDS:
                self.model.stop_training = True

    keras.utils.set_random_seed(0)
    imports = _status_bytes("VmRSS")
    with oocload.Loader(path, batch_size=256, seed=0, memory=CEILING) as loader:
        print(loader, flush=True)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((SIDE, SIDE)),
                layers.Rescaling(1 / 255),
                layers.Reshape((SIDE, SIDE, 1)),
                layers.Conv2D(16, 3, strides=2, activation="relu"),
                layers.Conv2D(32, 3, strides=2, activation="relu"),
                layers.Flatten(),
                layers.Dense(64, activation="relu"),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
        model.fit(
            loader.to_tf(),
            epochs=1,
            shuffle=False,
            callbacks=[StopAfter()],
            verbose=1 if sys.stdout.isatty() else 2,
        )
        _, _, x_test, y_test = held_out_split()
        still = np.zeros(len(x_test))
        x = resample(x_test, still, still + 1, np.zeros((len(x_test), 2)))
        _, accuracy = model.evaluate(x, y_test, verbose=0)
        stats = loader.stats
        return {
            "rows": loader.n_rows,
            "ceiling": loader.memory,
            "held": stats.memory.peak,
            "rss": _status_bytes("VmHWM") - imports,
            "accuracy": accuracy,
            "rows_per_s": stats.rows_per_s,
            "wait_share": stats.wait_share,
        }


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def train_apart(path: Path) -> dict[str, float | str]:
    """Run `train` in a new process and return what it measured."""
    with tempfile.NamedTemporaryFile() as result:
        command = [sys.executable, __file__, "--train", str(path), "--result", result.name]
        subprocess.run(command, check=True)
        return dict(json.loads(Path(result.name).read_text()))


def table(results: dict[Path, dict[str, float]]) -> str:
    """Return the results as lines of text, one column per store."""
    mib = 2**20
    lines = [("", *(p.name for p in results))]
    for title, cell in (
        ("rows", lambda p, r: f"{r['rows']:,}"),
        ("bytes on disk", lambda p, r: f"{stored_nbytes(p) / mib:,.0f} MiB"),
        ("memory ceiling", lambda p, r: f"{r['ceiling'] / mib:.0f} MiB"),
        ("peak memory oocload held", lambda p, r: f"{r['held'] / mib:.0f} MiB"),
        ("peak RSS above imports", lambda p, r: f"{r['rss'] / mib:.0f} MiB"),
        ("held-out accuracy", lambda p, r: f"{r['accuracy']:.4f}"),
        ("rows/s in training", lambda p, r: f"{r['rows_per_s']:,.0f}"),
        ("time waiting for data", lambda p, r: f"{r['wait_share']:.1%}"),
    ):
        lines.append((title, *(cell(p, r) for p, r in results.items())))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=DEFAULT_ROWS, help=f"images per store (default {DEFAULT_ROWS:,})")
    parser.add_argument("--out", type=Path, help="keep the stores in this folder")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        Path(args.result).write_text(json.dumps(train(args.train)))
        return
    if args.rows < 256:
        parser.error(f"--rows must be at least 256, one batch, got {args.rows}")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / "digits.h5", folder / "digits.zarr"]
        write_stores(paths, args.rows)
        for path in paths:
            print(oocload.open(path), flush=True)
        results = {path: train_apart(path) for path in paths}
        print("\n" + table(results))
    print(f"\n{time.perf_counter() - began:.0f} s in all" + (f"; the stores are in {args.out}" if args.out else ""))


if __name__ == "__main__":
    main()

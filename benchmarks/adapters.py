"""What does a framework's way of taking batches cost?

- **PyTorch**: `to_torch()`, iterated and in a ``DataLoader`` without and with workers, against the plain iterator; and
  against a ``DataLoader`` over rows of h5py, as users write it.
- **JAX**: `to_jax()` against the plain iterator.
- **batches**: `to_tf()` against ``tf.data.Dataset.from_generator`` over an equal loader, and the plain iterator.
- **TFRecord**: `to_tf()` against TFRecord files of the same images, read as an expert does, with as many rows in the
  shuffle buffer as in the loader's window; both uncompressed, then both gzip.
- **Keras**: how often ``model.fit(shuffle=True)`` over `to_keras()` has each row decoded per epoch, by 1 and 4 workers.

PyTorch, JAX and TensorFlow take the same batches (`batch_cases.py`): uncompressed HDF5, images of 12 KiB in batches of
3 and 12 MiB, rows of 784 bytes in batches of 24 KiB and 1.1 MiB; of the batches of 3 MiB, in the order of the file as
well, and from gzip. A framework that is not installed is left out.

TensorFlow's datasets are consumed by a Python loop that touches nothing, and by a loop inside a ``tf.function``. It
takes tens of milliseconds to make an iterator, however long the epoch is. So what a further batch takes is the
difference between some epochs by one iterator (``dataset.repeat``) and one epoch. The page cache is warm; what is
delivered is checked before anything is timed.

Examples::

    python benchmarks/adapters.py --json result.json
    python benchmarks/adapters.py --only PyTorch JAX
    python benchmarks/adapters.py --only "digits, 32"
    python benchmarks/adapters.py --quick
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import machine
from batch_cases import Options, Stores

import oocload

# Title → module, what it needs, and its function. PyTorch comes first: its workers are forked, which wants few threads.
PARTS = {
    "PyTorch": ("torch_batches", "torch", "measure"),
    "rows": ("torch_batches", "torch", "measure_rows"),
    "JAX": ("jax_batches", "jax", "measure"),
    "batches": ("tf_batches", "tensorflow", "measure"),
    "TFRecord": ("tfrecord", "tensorflow", "measure"),
    "Keras": ("keras_fit", "keras", "measure"),
}


def measure(title: str, stores: Stores, options: Options) -> list[dict[str, Any]]:
    module, package, function = PARTS[title]
    if find_spec(package) is None:
        print(f"left out, as {package} is not installed: {title}", flush=True)
        return []
    results: list[dict[str, Any]] = getattr(import_module(module), function)(stores, options)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", nargs="+", default=[""], help='cases whose name has one of these: PyTorch JAX "digits, 32" gzip Keras'
    )
    parser.add_argument("--quick", action="store_true", help="a small size that shows it runs; its figures mean little")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile: up to 2 GB")
    args = parser.parse_args()
    options = Options(1 if args.quick else args.rounds, args.only, args.quick)
    warnings.simplefilter("ignore", oocload.ShuffleQualityWarning)
    print(f"medians of {options.rounds} interleaved rounds, warm page cache", flush=True)
    with tempfile.TemporaryDirectory(dir=args.dir) as folder:
        stores = Stores(Path(folder), args.quick)
        results = {title: measure(title, stores, options) for title in PARTS}
    machine.save(args.json, {"benchmark": "adapters", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()

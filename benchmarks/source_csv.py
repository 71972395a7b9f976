"""How fast are CSV files read and converted, beside pyarrow's own reading of the same files?

The contenders of `cases`, as `convert.py` times them, on files of numbers and of text. "source" reads with oocload
alone, every column a field; "stream" is pyarrow's `open_csv`, which holds a few blocks as oocload does; "whole" is
`read_csv` on all cores, which holds all rows. "matrix" and "tokens" convert into HDF5 without a codec. Before anything
is timed, the rows are compared with those that pyarrow reads.

Example::

    python benchmarks/source_csv.py --rounds 5 --json result.json
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import machine
import numpy as np
import pyarrow
from conversions import Case, remove
from pyarrow import csv
from store_statistics import counted, ratios

import oocload
from oocload.sources import CsvSource, Text
from oocload.units import parse_bytes

MEMORY = "64 MiB"
_PIECE_NBYTES = 6 * 2**20  # as a conversion within MEMORY takes them
_N_COLUMNS, _N_WORDS, _LENGTH = 10, 20_000, 25


def cases() -> dict[str, Case]:
    """Return question → its case."""
    matrix = partial(convert, features=True)
    tokens = partial(convert, text={"text": Text(max_tokens=_N_WORDS)})
    readers: dict[str, Any] = {"source": read_source, "stream": read_stream, "whole": read_whole}
    return {
        "CSV of numbers": Case("numbers.csv", "numbers.h5", {**readers, "matrix": matrix}),
        "CSV of text": Case("text.csv", "text.h5", {**readers, "tokens": tokens}),
    }


def read_source(source: Path, target: Path) -> int:
    """Read with oocload, in pieces."""
    del target
    batches = CsvSource(source).batches(_PIECE_NBYTES, n_ahead=2)
    return sum(len(next(iter(batch.values()))) for batch in batches)


def read_stream(source: Path, target: Path) -> int:
    """Read with pyarrow, a block after the other."""
    del target
    with csv.open_csv(source) as reader:
        return sum(batch.num_rows for batch in reader)


def read_whole(source: Path, target: Path) -> int:
    """Read with pyarrow, all at once, on all cores."""
    del target
    return len(csv.read_csv(source))


def convert(source: Path, target: Path, **options: Any) -> None:
    """Convert within a ceiling."""
    oocload.convert(CsvSource(source, **options), target, codec="none", memory=MEMORY, progress=False)


def write_sources(folder: Path, nbytes: int) -> None:
    """Write files of about some bytes: normal numbers of six digits, and texts whose words follow Zipf."""
    rng = np.random.default_rng(0)
    n_rows = max(100, nbytes // (9 * _N_COLUMNS))
    columns = {f"f{i}": rng.standard_normal(n_rows).round(6) for i in range(_N_COLUMNS - 1)}
    numbers = pyarrow.table({**columns, "n": rng.integers(0, 1000, n_rows)})
    csv.write_csv(numbers, folder / "numbers.csv")
    n_rows = max(100, nbytes // (4 * _LENGTH))
    words = np.array([f"w{i}" for i in range(_N_WORDS)])[rng.zipf(1.3, (n_rows, _LENGTH)) % _N_WORDS]
    texts = pyarrow.table({"id": np.arange(n_rows), "text": [" ".join(row) for row in words]})
    csv.write_csv(texts, folder / "text.csv")


def check(folder: Path) -> None:
    """See that all rows come as pyarrow reads them."""
    wanted = csv.read_csv(folder / "numbers.csv").to_pandas().to_numpy("f4")
    convert(folder / "numbers.csv", folder / "numbers.h5", features=True)
    with h5py.File(folder / "numbers.h5") as file:
        assert np.array_equal(file["x"][()], wanted)
    texts = csv.read_csv(folder / "text.csv")["text"].to_pylist()
    oocload.convert(folder / "text.csv", folder / "text.h5", progress=False)
    with h5py.File(folder / "text.h5") as file:
        assert file["text/values"][()].tobytes() == "".join(texts).encode()
        assert np.array_equal(np.diff(file["text/offsets"][()]), [len(text) for text in texts])
    for case in cases().values():
        remove(folder / case.target)


def measure(folder: Path, nbytes: int, rounds: int) -> dict[str, Any]:
    """Write, compare, then time the contenders in turn."""
    write_sources(folder, nbytes)
    check(folder)
    found: dict[str, Any] = {}
    for question, case in cases().items():
        source, target = folder / case.source, folder / case.target
        size = source.stat().st_size
        todo = {name: partial(one, source, target) for name, one in case.contenders.items()}
        rates = machine.by_round(
            {n: partial(counted, one, size) for n, one in todo.items()}, rounds, partial(remove, target)
        )
        found[question] = {
            "mb_per_s": {name: machine.spread([rate / 1e6 for rate in each]) for name, each in rates.items()},
            "source_to_stream": ratios(rates, "source", "stream"),
            "source_to_whole": ratios(rates, "source", "whole"),
        }
        print(question, found[question], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nbytes", default="100 MB", help="of each file, about")
    parser.add_argument("--json", help="where to write the result")
    parser.add_argument("--dir", help="where to put the files meanwhile")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        results = measure(Path(name), parse_bytes(args.nbytes, "nbytes"), args.rounds)
    machine.save(args.json, {"benchmark": "source_csv", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()

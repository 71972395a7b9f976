"""Convert numbered CSV or TSV files, gzipped or not, to one HDF5 or Zarr store: numbers, labels and text.

python scripts/convert_csv.py "data/part-*.csv" train.h5 --features --label species
python scripts/convert_csv.py messages.tsv messages.zarr --label Label --tokens SMS --maxlen 60 --no-quotes
python scripts/convert_csv.py --example example
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np

import oocload
from oocload.sources import CsvSource, Text

SPECIES = ("setosa", "versicolor", "virginica")


def make_example(folder: Path) -> str:
    """Write three small files of different lengths, the last one packed; return the glob that finds them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, n_rows in enumerate((400, 250, 125)):
        path = folder / f"part-{number}.csv{'.gz' if number == 2 else ''}"
        with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else open(path, "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["length", "width", "species", "note"])
            for kind in rng.integers(0, len(SPECIES), n_rows):
                length, width = (rng.normal([5 + kind, 3 - kind / 2], 0.4)).round(2)
                rows.writerow([length, width, SPECIES[kind], f"a {SPECIES[kind]}, seen\nby chance"])
    return f"{folder}/part-*.csv*"


def source_of(paths: str, args: argparse.Namespace) -> CsvSource:
    """Return the files with the options that were given."""
    options: dict[str, Any] = {"delimiter": args.delimiter, "on_error": args.on_error}
    if args.features is not None:
        options["features"] = args.features or True
    if args.no_quotes:
        options["quote"] = None
    text = {name: Text(max_tokens=args.max_tokens, maxlen=args.maxlen) for name in args.tokens}
    return CsvSource(paths, columns=args.columns, label=args.label, text=text, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", help="a file, or a quoted glob")
    parser.add_argument("target", nargs="?", help="the new store, .h5 or .zarr")
    parser.add_argument("--example", metavar="FOLDER", type=Path, help="make small files there, and convert those")
    parser.add_argument("--columns", nargs="+", help="take only these, and those that other options name")
    parser.add_argument("--features", nargs="*", help="columns of the matrix x; all of numbers where none is named")
    parser.add_argument("--label", help="column of the label, which becomes y: codes with a vocabulary")
    parser.add_argument("--tokens", nargs="+", default=[], help="columns of text that become numbers of words")
    parser.add_argument("--max-tokens", type=int, help="of the vocabulary; default: all words")
    parser.add_argument("--maxlen", type=int, help="words of a row, cut or padded; default: as many as there are")
    parser.add_argument("--delimiter", help="between values; default: found in the first line")
    parser.add_argument("--no-quotes", action="store_true", help="where quotes are characters as others")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="rows that cannot be read")
    parser.add_argument("--memory", help="ceiling, such as '256 MiB'")
    args = parser.parse_args()
    source, target = args.source, args.target
    if args.example is not None:
        source, target = make_example(args.example), args.example / "table.h5"
        args.features, args.label, args.tokens = args.features or [], args.label or "species", args.tokens or ["note"]
    if source is None or target is None:
        parser.error("SOURCE and TARGET must be given, or --example FOLDER")
    report = oocload.convert(source_of(source, args), target, memory=args.memory, resume=True)
    print(report)
    for where, reason in report.skipped:
        print(f"skipped {where}: {reason}")


if __name__ == "__main__":
    main()

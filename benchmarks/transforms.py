"""What do operations, padding and transforms cost?

- **operations**: bytes made normalised floats while rows are written to their places, beside the same as a NumPy
  transform, and beside writing as many floats.
- **padding**: rows of about 100 tokens, beside ``keras.utils.pad_sequences`` on Python lists, and beside a copy of the
  padded bytes.
- **transforms**: 5 ms of Python that hold the GIL, and some NumPy, in the consumer's thread, in threads and in
  processes.

Examples::

    python benchmarks/transforms.py --json result.json
    python benchmarks/transforms.py --only padding --rounds 5
    python benchmarks/transforms.py --quick
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import machine
from fused_ops import fused_ops
from overheads import as_range, print_header, print_row
from padding import padding
from transform_processes import compare

Result = dict[str, Any]

PARTS: Mapping[str, Callable[[Path, int, bool], Result]] = {
    "operations": fused_ops,
    "padding": padding,
    "transforms": compare,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small stores, one round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dir", type=Path, help="where stores are written; default: a temporary folder")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    results: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        for part in arguments.only:
            results[part] = PARTS[part](Path(folder), rounds, arguments.quick)
            show(results[part])
    machine.save(arguments.json, {"benchmark": "transforms", **machine.facts("warm"), "results": results})


def show(result: Result, title: str = "") -> None:
    """Print rates and ratios of a result, or of each result in one."""
    rates = [name for name in ("rows_per_s", "batches_per_s") if name in result]
    if not rates:
        for case, inner in result.items():
            show(inner, case)
        return
    print_header(title or "what", rates[0].replace("_per_s", "/s").replace("_", " "))
    for name, values in result[rates[0]].items():
        print_row(name, f"{values['median']:,.0f}")
    for name, ratios in result.items():
        if name == rates[0] or not isinstance(ratios, dict):
            continue
        if all(isinstance(r, dict) and "median" in r for r in ratios.values()):
            print_header(name.replace("_", " "), "median (low to high)")
            for other, values in ratios.items():
                print_row(other, as_range(values))


if __name__ == "__main__":
    main()

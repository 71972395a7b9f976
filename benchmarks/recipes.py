"""How do hand-written ways to feed a model compare with a loader, in rows/s and in memory?

Runs the command that each page in docs/recipes names, and prints the README's table. ``--write`` puts what the commands
print into the pages.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "recipes"
ORDER = (
    "batch_generator",
    "endless_generator",
    "keras_sequence",
    "csv_padded_batches",
    "mini_batches",
    "shuffle_buffer",
    "image_classification",
    "text_classification",
    "tf_data_generator",
    "timed_batches",
    "balanced_batches",
)
MIB = 2**20

_COMMAND = re.compile(
    r"`((?:OMP_NUM_THREADS=1 )?python scripts/recipes/\w+\.py[^`]*)`(?:.+\n)+\n```\n((?:.*\n)*?)```\n"
)


def measured_command(name: str) -> re.Match[str]:
    """Return the command of a page whose output stands below it: group 1, and the output: group 2."""
    found = _COMMAND.search((PAGES / f"{name}.md").read_text())
    if found is None:
        raise SystemExit(f"docs/recipes/{name}.md must name a command, with its output in a block below it")
    return found


def measure(name: str, folder: Path, rows: int | None) -> tuple[str, dict[str, Any]]:
    """Run the command of a page; return what it prints, and its figures."""
    words = [sys.executable if word == "python" else word for word in shlex.split(measured_command(name)[1])]
    command = ["env", *words, "--json", str(folder / "figures.json")]
    if rows is not None:
        command += ["--rows", str(rows), "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {(done.stdout + done.stderr).decode()[-2000:]}")
    return as_shown(done.stdout.decode()), json.loads((folder / "figures.json").read_text())


def as_shown(output: str) -> str:
    """Return what a terminal shows of an output: of a progress bar its last state."""
    lines = (line.rsplit("\r", 1)[-1].rstrip() for line in output.rstrip().split("\n"))
    return "\n".join(lines).strip("\n")


def write_output(name: str, output: str) -> None:
    """Put what the command printed into its page."""
    found, page = measured_command(name), PAGES / f"{name}.md"
    text = page.read_text()
    page.write_text(f"{text[: found.start(2)]}{output}\n{text[found.end(2) :]}")


def line_of(name: str, figures: dict[str, Any]) -> str:
    """Return a line of the table: the old way and oocload, rows/s and the peak of memory of both."""
    old, new = figures["ways"][figures["old"]], figures["ways"][figures["new"]]
    title = (PAGES / f"{name}.md").read_text().splitlines()[0].removeprefix("# From ").removeprefix("# ")
    cells = [
        f"[{title[0].upper()}{title[1:]}](docs/recipes/{name}.md)",
        f"{figures['data_nbytes'] / MIB:,.0f}",
        *(f"{way['rows_per_s']:,.0f}" for way in (old, new)),
        *(f"{way['peak_nbytes'] / MIB:,.0f}" for way in (old, new)),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER, metavar="NAME", help="these recipes alone")
    parser.add_argument("--rows", type=int, help="of each, in place of the page's")
    parser.add_argument("--write", action="store_true", help="put what the commands print into the pages")
    parser.add_argument("--json", help="where to write the result")
    args = parser.parse_args()
    print("| from | data, MiB | rows/s | with oocload | peak MiB | with oocload |\n|---|---|---|---|---|---|")
    results = []
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            output, figures = measure(name, Path(folder), args.rows)
        if args.write:
            write_output(name, output)
        print(line_of(name, figures), flush=True)
        results.append({"recipe": name, **figures})
    machine.save(args.json, {"benchmark": "recipes", **machine.facts("warm"), "results": results})


if __name__ == "__main__":
    main()

"""Convert one .npy file per sample, with labels and a partition, to one chunked store. Copy this, and change it.

Before: `samples/id-1.npy`, `samples/id-2.npy`, ..., a dict of labels and one of ids for each set, in JSON or CSV files.
After: one file with the fields x, y, id and split, which trains with `oocload.Loader("samples.h5", 64, split="train")`.

Example, which makes its own samples:

    python scripts/convert_npy_folder.py --example /tmp/samples
    python scripts/convert_npy_folder.py /tmp/samples /tmp/samples.zarr --memory "256 MiB"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import oocload

N_EXAMPLES = 300


def make_example(folder: Path) -> None:
    """Write samples such as the recipe of one file per ID has them, and what it says of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    ids = [f"id-{number}" for number in range(N_EXAMPLES)]
    labels = {name: int(rng.integers(0, 3)) for name in ids}
    for name, label in labels.items():
        np.save(folder / f"{name}.npy", (rng.normal(size=(16, 16)) + label).astype("float32"))
    partition = {"train": ids[: N_EXAMPLES * 4 // 5], "validation": ids[N_EXAMPLES * 4 // 5 :]}
    (folder / "labels.json").write_text(json.dumps(labels))
    (folder / "partition.json").write_text(json.dumps(partition))


def show_batch(store: Path) -> None:
    """Show that the store trains: the first batch of the first set, or of all rows."""
    with oocload.open(store) as opened:
        fields = opened.fields
    split = fields["split"].meaning.vocabulary[0] if "split" in fields else None
    y = "y" if "y" in fields else None
    with oocload.Loader(store, min(32, fields["x"].n_rows), x="x", y=y, seed=0, split=split) as loader:
        batch = next(iter(loader))
    x = batch[0] if y else batch
    print(f"first batch of {split or 'all rows'}: x {x.shape} {x.dtype}, {len(loader)} batches an epoch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="folder of .npy files, at any depth")
    parser.add_argument("target", nargs="?", type=Path, help=".h5 or .zarr; default: the folder's name with .h5")
    parser.add_argument("--labels", type=Path, help="JSON of {id: label}, or CSV with the columns id and label")
    parser.add_argument("--partition", type=Path, help="JSON of {set: [ids]}, or CSV with the columns id and split")
    parser.add_argument("--ragged", action="store_true", help="samples differ in their first axis")
    parser.add_argument("--skip", action="store_true", help="leave out files that cannot be read, and list them")
    parser.add_argument("--memory", help='ceiling, such as "256 MiB"')
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    parser.add_argument("--example", type=Path, metavar="FOLDER", help="write samples there, and convert these")
    args = parser.parse_args()
    if args.example:
        make_example(args.example)
    folder = args.example or args.source
    if folder is None:
        parser.error("name a folder, or --example FOLDER")
    source = oocload.sources.NpyFolderSource(
        folder,
        labels=args.labels,
        partition=args.partition,
        ragged=args.ragged,
        on_error="skip" if args.skip else "raise",
    )
    target = args.target or folder.with_name(f"{folder.name}.h5")
    report = oocload.convert(source, target, memory=args.memory, overwrite=args.overwrite)
    print(report)
    if not args.ragged:
        show_batch(target)


if __name__ == "__main__":
    main()

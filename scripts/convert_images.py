"""Convert a folder of images, or a CSV file that names images, to one chunked store. Copy this, and change it.

Before: `root/cat/1.jpg`, or `root/train/cat/1.jpg` and `root/test/...`, or a CSV file with the columns path and label.
After: one file with the fields x, y (class), id (path) and split, decoded to one size, or stored as the files are.

Example, which makes its own images:

    python scripts/convert_images.py --example /tmp/pets --size 48 64 --fit crop
    python scripts/convert_images.py /tmp/pets /tmp/pets.zarr --encoded
"""

from __future__ import annotations

import argparse
from pathlib import Path

import imagecodecs
import numpy as np

import oocload

N_EXAMPLES = 40
CLASSES = ("cat", "dog")


def make_example(folder: Path) -> None:
    """Write images of two classes and two sets, of one shape."""
    rng = np.random.default_rng(0)
    for split, n_images in (("train", N_EXAMPLES), ("test", N_EXAMPLES // 4)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(n_images):
                pixels = rng.integers(100 * label, 100 * label + 100, (60, 80, 3), "uint8")
                (folder / split / name / f"{number}.jpg").write_bytes(imagecodecs.jpeg8_encode(pixels))


def show_batch(store: Path, size: tuple[int, int] | None, encoded: bool) -> None:
    """Show that the store trains: its first batch, decoded on the way where files were stored."""
    with oocload.open(store) as opened:
        fields = opened.fields
    decode = oocload.DecodeImages(size=size or (224, 224)) if encoded else None
    y = "y" if "y" in fields else None
    n_rows = min(16, fields["x"].n_rows)
    with oocload.Loader(store, n_rows, x="x", y=y, seed=0, transform=decode, transform_workers="threads") as loader:
        batch = next(iter(loader))
    x = batch[0] if y else batch
    print(f"first batch: x {x.shape} {x.dtype}; classes {', '.join(fields['y'].meaning.vocabulary) if y else 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="folder of images, or CSV file with paths")
    parser.add_argument("target", nargs="?", type=Path, help=".h5 or .zarr; default: the folder's name with .h5")
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="of all images")
    parser.add_argument("--fit", choices=("resize", "crop", "pad"), default="resize", help="how they get that size")
    parser.add_argument("--mode", choices=("rgb", "grey"), help="default: as the first image is")
    parser.add_argument("--encoded", action="store_true", help="store files as they are, to be decoded while loading")
    parser.add_argument("--path-column", default="path", help="of a CSV file")
    parser.add_argument("--label-column", default="label", help="of a CSV file")
    parser.add_argument("--split-column", help="of a CSV file")
    parser.add_argument("--skip", action="store_true", help="leave out images that cannot be read, and list them")
    parser.add_argument("--memory", help='ceiling, such as "256 MiB"')
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    parser.add_argument("--example", type=Path, metavar="FOLDER", help="write images there, and convert these")
    args = parser.parse_args()
    if args.example:
        make_example(args.example)
    path = args.example or args.source
    if path is None:
        parser.error("name a folder or CSV file, or --example FOLDER")
    size = tuple(args.size) if args.size else None
    source = oocload.sources.ImageFolderSource(
        path,
        size=size,
        fit=args.fit,
        mode=args.mode,
        encoded=args.encoded,
        path_column=args.path_column,
        label_column=args.label_column,
        split_column=args.split_column,
        on_error="skip" if args.skip else "raise",
    )
    target = args.target or path.with_name(f"{path.stem}.h5")
    print(oocload.convert(source, target, memory=args.memory, overwrite=args.overwrite))
    show_batch(target, size, args.encoded)


if __name__ == "__main__":
    main()

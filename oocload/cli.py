"""The command line: ``oocload convert``, ``info``, ``stats``, ``verify``. Errors: one line on stderr, exit code 2."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import oocload
from oocload.errors import InvalidArgumentError, OocloadError, StoreNotFoundError

_TARGETS = (".h5", ".hdf5", ".zarr")
_PYTHON = {"True": True, "False": False, "None": None}


class _Commands(click.Group):
    """Turns oocload's errors into one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (OocloadError, OSError) as exc:
            self._say(ctx, str(exc), exc)
            sys.exit(2)
        except KeyboardInterrupt as exc:
            self._say(ctx, "interrupted", exc)
            sys.exit(130)  # 128 + SIGINT, as shells have it

    def _say(self, ctx: click.Context, text: str, exc: BaseException) -> None:
        """Print an error on one line, with what its notes add."""
        said = "; ".join([text, *getattr(exc, "__notes__", ())])
        said = _in_words_of(self.commands.get(ctx.invoked_subcommand or ""), said)
        click.echo(f"oocload: {' '.join(said.split())}", err=True)


def _in_words_of(command: click.Command | None, text: str) -> str:
    """Return an error that names a command's options where it names arguments of the function behind them."""
    for option in () if command is None else command.params:
        if isinstance(option, click.Option):
            flag = option.opts[-1]
            if flag != f"--{option.name}" and option.name != "fields":  # those words have no other meaning
                text = re.sub(rf"^{option.name} must ", f"{flag} must ", text)
            text = re.sub(rf"\b{option.name}=\w+ \({flag}\)", flag, text)
            text = re.sub(rf"(?<= ){option.name}=(?:True\b|(?='|[ ,;.)]|$))", flag, text)
            text = re.sub(rf"(?<= ){flag}(?=')", f"{flag} ", text)
    return text


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(oocload.__version__, prog_name="oocload")
def main() -> None:
    """Train on arrays larger than memory, straight from HDF5 and Zarr."""


@main.command()
@click.argument("sources", nargs=-1, metavar="SRC...")
@click.argument("target", default="", metavar="DST")
@click.option("--field", "fields", multiple=True, metavar="NAME", help="Take only this field of SRC; repeatable.")
@click.option(
    "--codec",
    metavar="NAME",
    help="HDF5: gzip, lzf, none; zstd, blosc, lz4, bitshuffle (h5py reads those with hdf5plugin). Zarr: zstd, blosc, "
    "gzip, none. "
    "auto: the smallest that is decoded as fast as the disk reads.",
)
@click.option("--level", type=int, help="Level of the codec.")
@click.option("--chunk-bytes", default="512 KiB", show_default=True, help="Decoded bytes of one chunk, about.")
@click.option("--chunk-rows", type=int, help="Rows of one chunk, instead of --chunk-bytes.")
@click.option("--batch-size", type=int, help="Rows of the batches to be read; chunk heights fit it.")
@click.option("--chunks-per-shard", type=int, help="Zarr: chunks in one file; default: 1, or 64 for many chunks.")
@click.option("--zarr-format", type=int, default=3, show_default=True, help="Version of Zarr, 2 or 3.")
@click.option("--part-bytes", metavar="SIZE", help="Write several files of at most this size: DST is 'DIR/part-*.h5'.")
@click.option("--memory", metavar="SIZE", help="Ceiling on what is held, such as '256 MiB'.")
@click.option("--resume", is_flag=True, help="Go on with what a killed or failed conversion has left beside DST.")
@click.option("--overwrite", is_flag=True, help="Replace DST.")
@click.option("--dtype", "dtypes", multiple=True, metavar="[NAME=]DTYPE", help="Cast a field, or all; repeatable.")
@click.option("--shuffle", is_flag=True, help="Write rows in a uniformly random order, all fields together.")
@click.option("--seed", type=int, help="Of --shuffle; default: one is drawn, and named.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on the workers of this dask scheduler.")
@click.option(
    "-o",
    "--option",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the kind of source, such as label=species for CSV or size=[64,64] for images: text or JSON; "
    "repeatable. The classes of oocload.sources say which there are.",
)
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    help="What becomes of records that cannot be read, such as damaged images: an error, or skipped and listed.",
)
@click.option("--progress/--no-progress", default=None, help="Show a progress bar; default: on a terminal.")
def convert(
    sources: Sequence[str],
    target: str,
    fields: Sequence[str],
    dtypes: Sequence[str],
    given: Sequence[str],
    **options: Any,
) -> None:
    """Write SRC as the chunked store DST (.h5, .hdf5 or .zarr).

    SRC is a .npy, .npz, IDX, CSV, Parquet, Arrow, TFRecord, WebDataset, HDF5, AnnData or Zarr file, a folder of images
    or of .npy files, a quoted glob of files to join, or several as NAME=PATH, each becoming the field NAME:

        oocload convert x=images.npy y=labels.npy train.h5

        oocload convert 'part-*.csv' train.zarr -o label=species -o features=true
    """
    _check_both(sources, target)
    cast = _named("dtype", dtypes, "DTYPE") if any("=" in d for d in dtypes) else next(iter(dtypes), None)
    source: Any = _source(sources)
    if given:
        source = oocload.sources.from_path(
            source, **{k: _value(v) for k, v in _named("option", given, "VALUE").items()}
        )
    report = oocload.convert(source, target, fields=fields or None, dtypes=cast, **options)
    click.echo(str(report))


@main.command()
@click.argument("store", nargs=-1, required=True)
def info(store: Sequence[str]) -> None:
    """Show the fields of STORE, and on which path each will be read; reads no data.

    Several files are shown joined along axis 0, as they stand; a quoted glob in natural order.
    """
    with oocload.open(store[0] if len(store) == 1 else store) as opened:
        click.echo(repr(opened))


@main.command()
@click.argument("store", nargs=-1, required=True)
@click.option("--field", "fields", multiple=True, metavar="NAME", help="Look at this field only; repeatable.")
@click.option("--memory", metavar="SIZE", help="Ceiling on what is held, such as '64 MiB'.")
@click.option("--threads", type=int, help="Threads that read and add up; default: one per core.")
@click.option("--save", is_flag=True, help="Write the result beside STORE, as STORE.stats.json.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar; default: on a terminal.")
def stats(store: Sequence[str], fields: Sequence[str], **options: Any) -> None:
    """Show what the values of STORE are like: mean, deviation, range, NaN, labels; reads all of it once.

    Several files are looked at as joined along axis 0; a quoted glob in natural order.
    """
    with _no_field_for_a_store(store):
        click.echo(str(oocload.stats(store[0] if len(store) == 1 else store, fields or None, **options)))


@main.command()
@click.argument("store", nargs=-1, required=True)
@click.option("--field", "fields", multiple=True, metavar="NAME", help="Check this field only; repeatable.")
@click.option("--threads", type=int, help="Threads that read; default: one per core.")
@click.option("--progress/--no-progress", default=None, help="Show a progress bar; default: on a terminal.")
@click.option("--permutation-of", metavar="SRC", help="See that STORE has exactly the rows of SRC, in any order.")
def verify(store: Sequence[str], fields: Sequence[str], **options: Any) -> None:
    """Check the stored bytes of STORE against the checksums in it; names every bad chunk on a line of its own.

    Exits with 0 where all is as it was written, with 1 where something is bad, with 2 where there is nothing to check.
    """
    with _no_field_for_a_store(store):
        report = oocload.verify(store[0] if len(store) == 1 else store, fields=fields or None, **options)
    click.echo(str(report))
    if not report.ok:
        sys.exit(1)


@contextmanager
def _no_field_for_a_store(given: Sequence[str]) -> Iterator[None]:
    """Add to the error of a store that is not there, behind one that is, how a field is named."""
    try:
        yield
    except StoreNotFoundError as exc:
        absent = [name for name in given[1:] if not Path(name).exists() and not Path(name).suffix]
        if absent and Path(given[0]).exists():
            exc.add_note(f"to choose a field, pass --field {absent[0]}")
        raise


def _check_both(sources: Sequence[str], target: str) -> None:
    """Refuse a conversion of which only one of source and target is given, which click takes for the target."""
    if sources:
        return
    if not target:
        raise click.UsageError("Missing arguments 'SRC...' and 'DST': oocload convert SRC DST")
    if target.lower().rstrip("/").endswith(_TARGETS) and not Path(target).exists():
        raise click.UsageError(f"Missing argument 'SRC...', what is converted: oocload convert SRC {target}")
    raise click.UsageError(f"Missing argument 'DST', the store to write: oocload convert {target} DST")


def _source(sources: Sequence[str]) -> str | dict[str, str]:
    if len(sources) == 1 and Path(sources[0].partition("::")[0]).exists():
        return sources[0]
    if len(sources) == 1 and "=" not in sources[0]:
        return sources[0]
    return _named("source", sources, "PATH")


def _value(text: str) -> Any:
    """Return what an option's text says: JSON, one of Python's True, False and None, or itself."""
    if text in _PYTHON:
        return _PYTHON[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _named(what: str, given: Sequence[str], value: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if not all(mark for _, mark, _ in pairs):
        several = f"several {what}s" if len(given) > 1 else f"{what}s"
        example = f"; write such as x={given[0]} y={given[1]}" if what == "source" and len(given) > 1 else ""
        raise InvalidArgumentError(f"{several} must be given as NAME={value}, got {' '.join(given)}{example}")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise InvalidArgumentError(f"{what} names must differ, got {', '.join(given)}")
    return {name: value for name, _, value in pairs}

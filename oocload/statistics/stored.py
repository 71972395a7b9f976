"""Statistics in a JSON file beside the store, and back: an own format, with what tells that the store has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oocload.errors import InvalidArgumentError, StoreFormatError
from oocload.layout import FieldLayout
from oocload.statistics.labels import Run
from oocload.statistics.result import FieldStatistics, RowLengths, StoreStatistics
from oocload.stores.base import Store
from oocload.stores.joined import JoinedStore

VERSION = 1
_SUFFIX = ".stats.json"

Where = str | os.PathLike[str]


def stats_path(store: Store) -> Path:
    """Return where the statistics of a store lie when nobody says.

    Returns
    -------
    Path
        ``train.h5.stats.json`` beside ``train.h5``; of ``train.h5::group/sub`` it is ``train.h5.group.sub.stats.json``.

    Raises
    ------
    InvalidArgumentError
        If the store is several files, beside none of which they belong.

    """
    if isinstance(store, JoinedStore):
        raise InvalidArgumentError(
            f"save must be a path where several files are joined ({store.address}), got True; pass save='name.json'"
        )
    file, _, group = store.address.partition("::")
    path = Path(file)
    named = f"{path.name}.{group.strip('/').replace('/', '.')}" if group else path.name
    return path.with_name(named + _SUFFIX)


def fingerprint_of(store: Store) -> str:
    """Return what tells a store from another, or from what it was: sizes and times of change of its files.

    Of a Zarr directory the files are those of its metadata. Paths do not count, so that a store may be moved.
    """
    stamps = [(stamp.nbytes, stamp.mtime_ns) for stamp in store.stamps()]
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:32]


def save_statistics(found: StoreStatistics, store: Store, path: Where | None, fingerprint: str) -> Path:
    """Write statistics as JSON; the file appears whole, or not at all. Other fields of an unchanged store stay in it.

    Parameters
    ----------
    found
        What to write.
    store
        Theirs.
    path
        Where to; None for beside the store.
    fingerprint
        Of the store, from before it was read.

    """
    target = stats_path(store) if path is None else Path(path)
    fields: dict[str, Any] = {}
    if target.exists():
        known = _parsed(target)
        if (known["fingerprint"], known["store"]) == (fingerprint, _name(store)):
            fields = known["fields"]
    fields |= {name: _as_json(field) for name, field in found.fields.items()}
    content = {"version": VERSION, "store": _name(store), "fields": fields, "fingerprint": fingerprint}
    text = json.dumps(content, allow_nan=False, indent=1)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
        draft.replace(target)
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise InvalidArgumentError(
            f"save must be a path that can be written, got {os.fspath(target)!r}: {exc}; pass save='other/path.json'"
        ) from exc
    return target


def load_statistics(store: Store, field: str, path: Where | None = None) -> FieldStatistics:
    """Return the statistics of a field that ``oocload.stats(..., save=True)`` has written.

    Parameters
    ----------
    store
        The open store.
    field
        Name of the field.
    path
        Where they lie; None for beside the store.

    Raises
    ------
    UnknownFieldError
        If the store has no such field.
    InvalidArgumentError
        If there are none, or the store has changed since.
    StoreFormatError
        If the file is damaged.

    """
    layout = store.field(field)
    source = stats_path(store) if path is None else Path(path)
    again = "run oocload.stats(store, save=True)"
    if not source.exists():
        raise InvalidArgumentError(f"statistics of {store.address} must have been saved in {source}; {again}")
    content = _parsed(source)
    try:
        if content["fingerprint"] != fingerprint_of(store) or content["store"] != _name(store):
            raise InvalidArgumentError(
                f"statistics in {source} must be of {store.address} as it is, and it has changed since; {again} again"
            )
        if field not in content["fields"]:
            raise InvalidArgumentError(f"statistics in {source} must include field {field!r}, and do not; {again}")
        return _from_json(layout, content["fields"][field])
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        if isinstance(exc, InvalidArgumentError):
            raise
        raise _damaged(source, exc) from exc


def _name(store: Store) -> str:
    """Return what a store is called in its own folder; its group tells it from others in one file."""
    file, mark, group = store.address.partition("::")
    return f"{Path(file).name}{mark}{group}"


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
        version = content["version"]
        _, _, _ = content["fingerprint"], content["store"], content["fields"].keys()
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _damaged(path, exc) from exc
    if version != VERSION:
        raise StoreFormatError(
            f"{path} must be of version {VERSION}, got {version!r}; run oocload.stats(..., save=True)"
        )
    return dict(content)


def _damaged(path: Path, exc: Exception) -> StoreFormatError:
    return StoreFormatError(
        f"{path} must hold the statistics of a store, and does not: {type(exc).__name__} {exc}; delete it and run "
        "oocload.stats(..., save=True)"
    )


def _as_json(field: FieldStatistics) -> dict[str, Any]:
    histogram, run, lengths = field.histogram, field.longest_run, field.lengths
    return {
        "shape": list(field.shape),
        "dtype": field.dtype.str,
        "n_rows": field.n_rows,
        "channel_axis": field.channel_axis,
        **{name: _values(getattr(field, name)) for name in _ARRAYS},
        "histogram": None if histogram is None else [[label, count] for label, count in histogram.items()],
        "longest_run": None if run is None else run._asdict(),
        "lengths": None if lengths is None else lengths._asdict(),
    }


_ARRAYS = ("count", "mean", "std", "min", "max", "n_nan", "n_infinite")


def _values(array: NDArray[Any] | None) -> list[Any] | None:
    """Return numbers as JSON has them; NaN and infinity, which it has not, as text."""
    if array is None:
        return None
    return [
        str(x) if isinstance(x, float) and not isfinite(x) else x for x in array.astype(_wide(array.dtype)).tolist()
    ]


def _wide(dtype: np.dtype[Any]) -> Any:
    return np.float64 if dtype.kind == "f" else dtype


def _from_json(field: FieldLayout, saved: Mapping[str, Any]) -> FieldStatistics:
    dtype = np.dtype(saved["dtype"])
    dtypes = {"mean": np.float64, "std": np.float64, "min": dtype, "max": dtype}
    if tuple(saved["shape"]) != field.shape:
        raise ValueError(f"shape {saved['shape']}, and the field has {field.shape}")
    arrays: dict[str, Any] = {}
    for name in _ARRAYS:
        values, kind = saved[name], dtypes.get(name, np.dtype(np.int64))
        arrays[name] = None if values is None else np.array([_number(v) for v in values], kind)
    histogram, run, lengths = saved["histogram"], saved["longest_run"], saved["lengths"]
    return FieldStatistics(
        name=field.name,
        shape=field.shape,
        dtype=dtype,
        channel_axis=saved["channel_axis"],
        **arrays,
        histogram=None if histogram is None else dict(map(tuple, histogram)),
        longest_run=None if run is None else Run(**run),
        lengths=None if lengths is None else RowLengths(**lengths),
    )


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) else value

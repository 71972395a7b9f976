"""What h5py's metadata calls say about one dataset, as a layout."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import h5py
import numpy as np

from oocload.layout import NO_MEANING, Codec, FieldLayout, Meaning, ReadPath, reason_against
from oocload.stores.base import direct_path_enabled, native, unreadable
from oocload.stores.meaning import meaning_of
from oocload.stores.ragged import Encoding, encoding_of

# Registered filter numbers: https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_FILTER_NAMES = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4h5",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
_BITSHUFFLE_COMPRESSORS = {0: "", 2: "lz4", 3: "zstd"}
_MOST_NAMES = 8  # under which one group is listed: links can make more paths through a file than it has bytes
_MOST_BITSHUFFLE_ITEM_BYTES = 255
_DONT_FILTER_PARTIAL_CHUNKS = 2
_DIRECT_KINDS = "biufcSVMm"


class Found(NamedTuple):
    """A name below a group, and the dataset behind it or why there is none; or of a group that is one field."""

    name: str
    dataset: h5py.Dataset | None
    problem: str = ""
    encoding: Encoding | None = None


def walk(
    group: h5py.Group,
    prefix: str = "",
    above: frozenset[tuple[int, int]] = frozenset(),
    visits: Counter[tuple[int, int]] | None = None,
) -> Iterator[Found]:
    """Yield every dataset below a group, and the groups that are one field, itself included.

    Links are followed; a group is entered by a few of its names, not from within.
    """
    info = h5py.h5o.get_info(group.id)
    key = (info.fileno, info.addr)
    visits = Counter() if visits is None else visits
    if key in above or visits[key] >= _MOST_NAMES:
        return
    visits[key] += 1
    if (encoding := _encoding_of(group)) is not None:
        yield Found(prefix.rstrip("/"), None, encoding=encoding)
    for name in group:
        try:
            item = group[name]
        except (KeyError, OSError, RuntimeError) as exc:
            yield Found(prefix + name, None, _describe_link(group, name, exc))
            continue
        if isinstance(item, h5py.Dataset):
            yield Found(prefix + name, item)
        elif isinstance(item, h5py.Group):
            yield from walk(item, f"{prefix}{name}/", above | {key}, visits)


def _encoding_of(group: h5py.Group) -> Encoding | None:
    try:
        return encoding_of(group.attrs)
    except (OSError, RuntimeError, TypeError, ValueError):  # attributes that h5py cannot read
        return None


def _describe_link(group: h5py.Group, name: str, exc: Exception) -> str:
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        return f"its link to {link.path!r} in {link.filename!r} leads nowhere"
    if isinstance(link, h5py.SoftLink):
        return f"its link to {link.path!r} leads nowhere"
    return f"it cannot be opened: {exc}"


def describe(found: Found) -> FieldLayout:
    """Return one dataset's layout; what h5py cannot describe is listed as unreadable, and stops nobody else."""
    if found.dataset is None:
        return unreadable(found.name, (), found.problem)
    try:
        field = _describe(found.name, found.dataset)
        missing = _missing_filter(found.dataset) if field.read_path == "h5py" else None
        if missing is None:
            return field
        why = f"{field.reason}, and HDF5 has no filter {missing} here; pip install hdf5plugin"
        return unreadable(found.name, field.shape, why)
    except (TypeError, ValueError, OSError, RuntimeError) as exc:
        return unreadable(found.name, (), f"h5py cannot describe it: {exc}")


def _describe(name: str, dataset: h5py.Dataset) -> FieldLayout:
    plist = dataset.id.get_create_plist()
    codecs = tuple(_codec(plist.get_filter(i)) for i in range(plist.get_nfilters()))
    stored = dataset.dtype
    shape = dataset.shape if dataset.shape is not None else ()
    reason = _reason_for_fallback(dataset, plist, codecs)
    if shape and stored.subdtype is not None:  # items that are arrays: more axes
        stored, more = stored.subdtype
        shape = (*shape, *more)
    path: ReadPath = "h5py" if reason else "direct"
    return FieldLayout(
        name=name,
        shape=shape,
        dtype=native(stored),
        stored_dtype=stored,
        chunks=dataset.chunks and (*dataset.chunks, *shape[dataset.ndim :]) if shape else None,
        codecs=codecs,
        read_path=path,
        reason=reason,
        fill=_fill(plist, stored) if path == "direct" else b"",
        inline=path == "direct" and plist.get_layout() == h5py.h5d.COMPACT,
        meaning=_meaning(dataset),
    )


def _meaning(dataset: h5py.Dataset) -> Meaning:
    try:
        return meaning_of(dataset.attrs, dataset.dtype)
    except (OSError, RuntimeError, TypeError, ValueError):  # attributes that h5py cannot read
        return NO_MEANING


def _missing_filter(dataset: h5py.Dataset) -> str | None:
    """Return a filter that h5py needs for a dataset and does not have."""
    plist = dataset.id.get_create_plist()
    numbers = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if not all(map(h5py.h5z.filter_avail, numbers)):
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401  # importing it gives its filters to HDF5
    return next((str(_codec((n, 0, (0,), b""))) for n in numbers if not h5py.h5z.filter_avail(n)), None)


def _fill(plist: Any, dtype: np.dtype[Any]) -> bytes:
    value = np.zeros((), dtype)
    if plist.get_fill_time() != h5py.h5d.FILL_TIME_NEVER:
        plist.get_fill_value(value)
    return value.tobytes()


def _codec(entry: tuple[int, int, tuple[int, ...], bytes]) -> Codec:
    number, _, values, _ = entry
    name = _FILTER_NAMES.get(number, f"filter-{number}")
    if name == "deflate":
        return Codec(name, level=values[0] if values else None)
    if name == "shuffle":
        return Codec(name, item_bytes=values[0] if values else 0)
    if name == "bitshuffle" and len(values) > 2:
        block, compressor = (*values[3:5], 0, 0)[:2]
        variant = _BITSHUFFLE_COMPRESSORS.get(compressor, f"compressor-{compressor}")
        return Codec(name, item_bytes=values[2], variant=variant, block_items=block)
    return Codec(name)


def _reason_for_fallback(dataset: h5py.Dataset, plist: Any, codecs: tuple[Codec, ...]) -> str:
    """Return why h5py must read this dataset; empty when its bytes can be read directly."""
    dtype = dataset.dtype
    if dtype.hasobject:
        return "items of variable length" if "vlen" in (dtype.metadata or {}) else "items that are objects"
    if dtype.subdtype is not None:
        return "items that are arrays"
    if dtype.kind not in _DIRECT_KINDS or not dtype.itemsize:
        return f"dtype {dtype.name}"
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dtype, logical=True)):
        return f"stored type is not {dtype.name} bit for bit"
    if not dataset.shape:
        return "not an array of rows"
    if not direct_path_enabled():
        return "direct path switched off"
    layout = plist.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        return "virtual dataset"
    if layout == h5py.h5d.CONTIGUOUS and plist.get_external_count():
        return "raw data in external files"
    if layout not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT, h5py.h5d.CHUNKED):
        return "unknown layout"
    if codecs and _chunk_options(plist) & _DONT_FILTER_PARTIAL_CHUNKS:
        return "partial edge chunks without filters"
    return next((reason for c in codecs if (reason := _reason_for_shuffle(c))), "") or reason_against(codecs)


def _reason_for_shuffle(codec: Codec) -> str:
    if codec.name not in ("shuffle", "bitshuffle"):
        return ""
    if codec.item_bytes < 1 or codec.variant.startswith("comp"):
        return f"{codec.name} of an unknown kind"
    wide = codec.name == "bitshuffle" and codec.item_bytes > _MOST_BITSHUFFLE_ITEM_BYTES
    return f"bitshuffle of items of {codec.item_bytes} bytes" if wide else ""


def _chunk_options(plist: Any) -> int:
    """Return what `H5Pget_chunk_opts` says of a creation property list; h5py has no name for it."""
    options = ctypes.c_uint(0)
    try:
        get = ctypes.CDLL(h5py.h5p.__file__).H5Pget_chunk_opts
        get.argtypes, get.restype = [ctypes.c_int64, ctypes.POINTER(ctypes.c_uint)], ctypes.c_int
        return options.value if get(plist.id, ctypes.byref(options)) >= 0 else 0
    except (OSError, AttributeError):  # an HDF5 library that hides its names
        return 0

"""Batches as JAX arrays, some of them on the device before they are asked for.

On its CPU backend JAX takes aligned arrays as they are, for as long as anybody looks at them. As many slabs as the
loader can spare are lent to it so; while those are held (by the consumer, by batches ahead, by steps under way) batches
of others are copied. So slabs are those of a plain ``for``, whatever is kept.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from oocload.adapters.ahead import Copy, Started, batches_ahead
from oocload.adapters.floats import Affine, FloatsArgument, resolve
from oocload.adapters.shapes import check_arrays
from oocload.chunks.scratch import aligned_empty
from oocload.errors import InvalidArgumentError
from oocload.loader.batch import Batch
from oocload.loader.options import whole_number
from oocload.optional import require

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

jax: Any = require("jax", "jax", "to_jax()")

_X64 = 'jax.config.update("jax_enable_x64", True)'


class JaxBatches:
    """Batches of a loader as JAX arrays; each ``for`` is one epoch of the loader. Made by ``to_jax()``.

    Iterators are independent of each other, but they move the one position that the loader has. One iterator is for one
    thread at a time.

    Attributes
    ----------
    loader
        Gives the batches, and keeps the position.

    """

    def __init__(self, loader: BatchSource, device: Any, sharding: Any, floats: FloatsArgument, ahead: int) -> None:
        self.loader = loader
        self._ahead = whole_number("ahead", ahead, 0)
        _check_target(device, sharding)
        if loader.transform is None:
            _check_dtypes(loader)
        affines = resolve(floats, loader)
        _check_floats(affines)
        if sharding is not None:
            _check_rows(loader, sharding)
        self._device, self._sharding = device, sharding
        self._floats = {name: _compiled(affine) for name, affine in affines.items()}
        self._lent = _lent.setdefault(loader, _Lent())

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over one epoch: the rest of a loaded one, or the next."""
        return batches_ahead(self.loader, self, self._ahead)

    # To the device

    def start(self, batch: Batch) -> Copy:
        """Put a batch on the device; JAX holds the host's memory for as long as it reads it."""
        return Started(self._put(batch))

    def _put(self, batch: Batch) -> Any:
        """Return a batch whose arrays are on the device, or on their way."""
        if self.loader.transform is None:
            return self._put_fields(batch)
        leaves, form = jax.tree_util.tree_flatten_with_path(batch)
        hosts = [_made_by_transform(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
        return jax.tree_util.tree_unflatten(form, self._transferred(hosts))

    def _put_fields(self, batch: Batch) -> Any:
        form = self.loader.form
        arrays: dict[str, NDArray[Any]] = dict(form.items(batch))
        hosts = [self._on_host(name, array) for name, array in arrays.items()]
        there = dict(zip(arrays, self._transferred(hosts), strict=True))
        for name, compiled in self._floats.items():
            there[name] = compiled(there[name])
        return form.build(there.__getitem__)

    def _on_host(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array of a dtype of JAX's, that JAX may keep."""
        dtype = _canonical(f"field {name!r}", array)
        if dtype == array.dtype and self._lent.to(array, self.loader.spare_slabs):
            return array
        return _copied(array, dtype)

    def _transferred(self, hosts: list[Any]) -> list[Any]:
        sharding = self._sharding
        if sharding is None:
            return cast("list[Any]", jax.device_put(hosts, self._device))
        try:
            if sharding.is_fully_addressable:
                return cast("list[Any]", jax.device_put(hosts, sharding))
            return [jax.make_array_from_process_local_data(sharding, host) for host in hosts]
        except ValueError as exc:
            shapes = ", ".join(str(np.shape(host)) for host in hosts)
            raise InvalidArgumentError(
                f"sharding must divide every array of a batch, got {sharding} for arrays of {shapes}; give all batches "
                "rows that it divides (drop_last=True, another batch_size)"
            ) from exc


class _Lent:
    """The slabs that JAX may look at: as many as the loader can spare."""

    def __init__(self) -> None:
        self._roots: list[weakref.ref[NDArray[Any]]] = []
        self._refused: weakref.ref[NDArray[Any]] | None = None

    def to(self, array: NDArray[Any], n_spare: int) -> bool:
        """Whether JAX may look at an array itself: of a slab that it has, or of another where it has few enough."""
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        if self._has(root):
            return True
        if len(self._roots) >= n_spare and (self._refused is None or self._refused() is not root):
            gc.collect(0)  # JAX lets go of what it looks at no more when Python collects; asked for once a slab
            self._has(root)
        if len(self._roots) >= n_spare:
            self._refused = weakref.ref(root)
            return False
        self._roots.append(weakref.ref(root))
        return True

    def _has(self, root: NDArray[Any]) -> bool:
        held = [(ref, there) for ref in self._roots if (there := ref()) is not None]
        self._roots = [ref for ref, _ in held]
        return any(there is root for _, there in held)


_lent: weakref.WeakKeyDictionary[BatchSource, _Lent] = weakref.WeakKeyDictionary()


# Arrays on the host


def _canonical(what: str, array: NDArray[Any]) -> np.dtype[Any]:
    """Return the dtype that JAX has for an array's.

    Raises
    ------
    InvalidArgumentError
        If there is none, or numbers of 64 bits do not fit 32.

    """
    if not _has_arrays(array.dtype):
        raise InvalidArgumentError(f"{what} must have a dtype that JAX has, got {array.dtype}")
    dtype: np.dtype[Any] = np.dtype(jax.dtypes.canonicalize_dtype(array.dtype.newbyteorder("=")))
    if array.dtype.kind in "iu" and dtype.itemsize < array.dtype.itemsize and array.size:
        least, most, bounds = array.min(), array.max(), np.iinfo(dtype)
        if least < bounds.min or most > bounds.max:
            raise InvalidArgumentError(
                f"{what} must have values that fit {dtype}, as JAX has no {array.dtype} unless it is told to, got "
                f"{least} to {most}; call {_X64}"
            )
    return dtype


@cache
def _has_arrays(dtype: np.dtype[Any]) -> bool:
    """Whether JAX has arrays of a dtype, or of the same in native byte order."""
    jax.local_devices()  # what fails here is not the dtype
    try:
        jax.device_put(np.zeros(1, dtype.newbyteorder("=")))
    except (TypeError, RuntimeError):
        return False
    return True


def _copied(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a copy at an address with which JAX does not copy again."""
    copy: NDArray[Any] = aligned_empty(array.size * dtype.itemsize).view(dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _made_by_transform(path: str, leaf: Any) -> Any:
    """Return what JAX may keep: a transform may write into the same arrays again for the next batch."""
    if isinstance(leaf, jax.Array):
        return leaf
    array = np.asarray(leaf)
    return _copied(array, _canonical(f"array {path or 'that transform returns'}", array))


def _compiled(affine: Affine) -> Callable[[Any], Any]:
    factor, offset, dtype = affine

    def to_floats(values: Any) -> Any:
        return (values.astype(factor.dtype) * factor + offset).astype(dtype)

    return cast("Callable[[Any], Any]", jax.jit(to_floats))


# Arguments


def _check_target(device: Any, sharding: Any) -> None:
    if device is not None and sharding is not None:
        raise InvalidArgumentError(
            f"device must not be given beside sharding, got {device!r} and {sharding!r}; a sharding names its devices"
        )
    if device is not None and not isinstance(device, jax.Device):
        raise InvalidArgumentError(f"device must be one of jax.devices(), or None, got {device!r}")
    if sharding is not None and not isinstance(sharding, jax.sharding.Sharding):
        raise InvalidArgumentError(
            f"sharding must be a jax.sharding.Sharding, or None, got {sharding!r}; make one with "
            'NamedSharding(mesh, PartitionSpec("data"))'
        )


def _check_dtypes(loader: BatchSource) -> None:
    for name, field in loader.fields.items():
        if not _has_arrays(field.dtype):
            raise InvalidArgumentError(
                f"field {name!r} must have a dtype that JAX has, got {field.dtype}; choose other fields with x="
            )


def _check_floats(affines: dict[str, Affine]) -> None:
    for name, affine in affines.items():
        if affine.dtype == "float64" and not jax.config.jax_enable_x64:
            raise InvalidArgumentError(
                f"floats must be of a dtype that JAX has, got float64 for {name!r}; take float32, or call {_X64}"
            )


def _check_rows(loader: BatchSource, sharding: Any) -> None:
    """Check that a sharding divides all batches, as far as their arrays are known before the first."""
    n_devices = len(sharding.device_set)
    shapes = {name: field.row_shape for name, field in loader.fields.items()} if loader.transform is None else {"": ()}
    for name, row_shape in shapes.items():
        if not _divides(sharding, (n_devices, *row_shape)):  # so the rows are not what it fails at
            if loader.transform is not None:
                return
            raise InvalidArgumentError(
                f"sharding must suit all arrays of a batch, got {sharding} for field {name!r} with rows of "
                f"{row_shape}; divide axis 0 only"
            )
        if not _divides(sharding, (loader.batch_size, *row_shape)):
            raise InvalidArgumentError(
                f"batch_size must be a number of rows that the sharding divides, got {loader.batch_size} for "
                f"{sharding}; a multiple of {n_devices} always is"
            )
        last = loader.rows_of(len(loader) - 1)
        if loader.uniform and not loader.even and not _divides(sharding, (last, *row_shape)):
            raise InvalidArgumentError(
                f"the last batch must have rows that the sharding divides, got {last} for {sharding}; pass "
                "drop_last=True to the loader, or another batch_size"
            )


def _divides(sharding: Any, shape: tuple[int, ...]) -> bool:
    """Whether a sharding takes arrays of a shape, of which each process has one."""
    try:
        if sharding.is_fully_addressable:
            sharding.shard_shape(shape)
        else:
            jax.make_array_from_process_local_data(sharding, np.broadcast_to(np.zeros((), bool), shape))
    except (ValueError, IndexError):  # of rows that it does not divide; of arrays with too few axes
        return False
    return True


def to_jax(loader: BatchSource, device: Any, sharding: Any, floats: FloatsArgument, ahead: int) -> JaxBatches:
    """Return `JaxBatches` of a loader."""
    check_arrays(loader, "to_jax()")
    return JaxBatches(loader, device, sharding, floats, ahead)

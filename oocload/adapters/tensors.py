"""Arrays of a batch as tensors of PyTorch's over the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from oocload.errors import InvalidArgumentError
from oocload.loader.batch import Batch, BatchForm
from oocload.loader.padding import Ragged
from oocload.optional import require

torch: Any = require("torch", "torch", "to_torch()")

# What ml_dtypes calls them, and a dtype of NumPy's own of the same size, as which PyTorch takes their bytes.
_EXTENSION_DTYPES = {
    "bfloat16": np.int16,
    "float8_e4m3fn": np.uint8,
    "float8_e4m3fnuz": np.uint8,
    "float8_e5m2": np.uint8,
    "float8_e5m2fnuz": np.uint8,
    "float8_e8m0fnu": np.uint8,
}


@runtime_checkable
class Csr(Protocol):
    """A sparse matrix by rows, as ``scipy.sparse.csr_array``."""

    indptr: Any
    indices: Any
    data: Any
    shape: Any


_ARRAYS = np.ndarray | np.generic | Ragged | Csr


def as_tensors(batch: Batch) -> Batch:
    """Return a batch whose arrays are tensors over the same memory; anything else in it stays as it is.

    `Ragged` rows become nested tensors of jagged layout, and CSR matrices sparse ones.

    Raises
    ------
    InvalidArgumentError
        If an array has a dtype that PyTorch lacks.

    """
    return mapped(batch, _as_tensor, _ARRAYS)


def _as_tensor(array: Any) -> Any:
    if isinstance(array, Ragged):
        return torch.nested.nested_tensor_from_jagged(_as_tensor(array.values), _as_tensor(array.offsets))
    if not isinstance(array, np.ndarray | np.generic) and isinstance(array, Csr):
        parts = (_as_tensor(part) for part in (array.indptr, array.indices, array.data))
        return torch.sparse_csr_tensor(*parts, array.shape, check_invariants=False)
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    stand_in = _EXTENSION_DTYPES.get(array.dtype.name)
    if stand_in is not None:
        return torch.from_numpy(array.view(stand_in)).view(getattr(torch, array.dtype.name))
    check_dtype("a transform's array", array.dtype)
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()  # a transform's view of its own; tensors have neither
    return torch.from_numpy(array)


def check_dtype(what: str, dtype: np.dtype[Any], remedy: str = "") -> None:
    """Refuse a dtype of which there are no tensors."""
    if dtype.name in _EXTENSION_DTYPES and hasattr(torch, dtype.name):
        return
    try:
        torch.from_numpy(np.empty(0, dtype.newbyteorder("=")))
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"{what} must have a dtype that PyTorch has, got {dtype}{remedy}") from None


def mapped(batch: Batch, function: Callable[[Any], Any], kind: Any = torch.Tensor) -> Batch:
    """Return a batch with each array of a kind replaced; anything else in it stays as it is."""
    if isinstance(batch, kind):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: mapped(value, function, kind) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(value, function, kind) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(mapped(value, function, kind) for value in batch)
    return batch


def tensors_of(batch: Batch) -> Iterator[Any]:
    """Yield the tensors of a batch."""
    found: list[Any] = []
    mapped(batch, found.append)
    yield from found


def shared_copies(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return copies of arrays as tensors that go to another process without being copied again."""
    return {name: _shared_copy(_as_tensor(array)) for name, array in arrays.items()}


def _shared_copy(tensor: Any) -> Any:
    storage = torch.UntypedStorage._new_shared(tensor.nbytes)
    copy = torch.empty(0, dtype=tensor.dtype).set_(storage, 0, tensor.shape)
    return copy.copy_(tensor)


def cut_tensors(form: BatchForm, arrays: Mapping[str, Any], batch_rows: int) -> Iterator[Batch]:
    """Yield the batches that lie one after the other in some arrays, as tensors over the same memory."""
    parts = {name: _as_tensor(array).split(batch_rows) for name, array in arrays.items()}
    columns = [parts[part] if isinstance(part, str) else _dicts(part, parts) for part in form.parts]
    return iter(columns[0]) if form.alone else zip(*columns, strict=True)


def _dicts(names: Sequence[str], parts: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in zip(*(parts[name] for name in names), strict=True):
        yield dict(zip(names, values, strict=True))

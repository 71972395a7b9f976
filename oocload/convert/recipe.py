"""What a conversion makes, and of what: equal for two runs that may go on with each other's work."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from oocload.convert.arrays import NewArray
from oocload.convert.encode import Encoding
from oocload.convert.fields import Spec
from oocload.convert.ragged import CsrSpec, RaggedSpec
from oocload.convert.spec import FieldSpec
from oocload.errors import InvalidArgumentError

VERSION = 1
SOURCE = "source"


def recipe_of(
    store_format: str,
    fields: Mapping[str, Spec],
    arrays: Mapping[str, NewArray],
    encoding: Encoding,
    source: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what is made as JSON has it.

    Parameters
    ----------
    store_format
        "hdf5", "zarr2" or "zarr3".
    fields, arrays, encoding
        What is written.
    source
        What tells the source from others; None where nothing does.

    """
    recipe = {
        "version": VERSION,
        "format": store_format,
        "fields": {name: _as_json(spec) for name, spec in fields.items()},
        "chunks": {name: [array.height, array.chunks_per_shard] for name, array in arrays.items()},
        "codec": encoding.codec,
        "level": encoding.level,
        SOURCE: source,
    }
    return dict(json.loads(json.dumps(recipe)))


def digest(recipe: Mapping[str, Any]) -> str:
    """Return a short hash of a recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]


def fields_of(recipe: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the fields of a recipe."""
    return {name: _from_json(spec) for name, spec in recipe["fields"].items()}


def check_recipe(begun: Mapping[str, Any], asked: Mapping[str, Any], where: str) -> None:
    """Raise where a conversion cannot go on with what was begun; the source is looked at by others.

    Raises
    ------
    InvalidArgumentError
        If they would make different stores.

    """
    for key in asked:
        if key != SOURCE and begun.get(key) != asked[key]:
            raise InvalidArgumentError(
                f"resume must go on with what was begun in {where}, whose {key} was {_shown(begun.get(key))}, got "
                f"{_shown(asked[key])}; pass the same arguments, or start anew without resume"
            )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:200]}…"


def _as_json(spec: Spec) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that h5py's own notes on a dtype are left out
        dtype = np.lib.format.dtype_to_descr(spec.dtype)
    if isinstance(spec, FieldSpec):
        return {"rows": list(spec.row_shape), "dtype": dtype}
    if isinstance(spec, RaggedSpec):
        return {"items": list(spec.item_shape), "dtype": dtype}
    return {"columns": spec.n_columns, "dtype": dtype}


def _from_json(said: Mapping[str, Any]) -> Spec:
    dtype = np.lib.format.descr_to_dtype(_tuples(said["dtype"]))
    if "rows" in said:
        return FieldSpec(tuple(said["rows"]), dtype)
    if "items" in said:
        return RaggedSpec(tuple(said["items"]), dtype)
    return CsrSpec(dtype, said["columns"])


def _tuples(descr: Any) -> Any:
    """Return a dtype's description with the tuples that JSON has made lists."""
    if isinstance(descr, str):
        return descr
    return [tuple(tuple(v) if isinstance(v, list) and i == 2 else _tuples(v) for i, v in enumerate(f)) for f in descr]

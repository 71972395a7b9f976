"""`to_jax()` against the plain iterator; each batch is waited for, so that it is ready before the clock stops."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import jax
from batch_cases import Case, Options, Stores
from consumers import check_rows, equal_batches
from epochs import Epochs, costs_of_cases, costs_of_epochs
from lineup import Stored

jax.config.update("jax_enable_x64", True)  # labels are row numbers of 64 bits

Result = dict[str, Any]


def measure(stores: Stores, options: Options) -> list[Result]:
    return costs_of_cases("JAX", stores, options, batch_cost)


def batch_cost(case: Case, stored: Stored, rounds: int) -> Result:
    """Compare who takes the same batches, each from a loader of its own."""
    with ExitStack() as stack:
        plain, ours = (stack.enter_context(case.loader(stored)) for _ in range(2))
        arrays = ours.to_jax()
        check_rows(equal_batches(plain, {"to_jax": arrays}), stored.array)
        facts = case.facts(plain)
        runs = {
            "iterator": Epochs(plain, facts["n_rows"], case.n_epochs),
            "to_jax": Epochs(arrays, facts["n_rows"], case.n_epochs, jax.block_until_ready),
        }
        backend = jax.default_backend()
        return {"what": f"JAX, {case}", "backend": backend, **facts, **costs_of_epochs(runs, rounds, facts)}

"""The rank of this process in a data-parallel job, where nobody says: from the framework or the launcher."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from oocload.errors import InvalidArgumentError

# Rank and number of ranks as launchers name them: torchrun, Open MPI, MPICH and Intel MPI, Slurm.
_VARIABLES = [
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS"),
]


def detect() -> tuple[int, int]:
    """Return (rank, world_size) of this process; (0, 1) where nothing speaks of ranks.

    Asked in turn: `torch.distributed` and `jax.distributed` where they are initialised, ``TF_CONFIG``, the variables of
    the usual launchers.

    Raises
    ------
    InvalidArgumentError
        If what is found cannot be a rank.

    """
    for source, rank, world_size in _found():
        if not 0 <= rank < world_size:
            raise InvalidArgumentError(
                f"rank must be from 0 to world_size - 1, and {source} says rank {rank} of {world_size}; "
                "pass rank= and world_size="
            )
        return rank, world_size
    return 0, 1


def _found() -> Iterator[tuple[str, int, int]]:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        yield "torch.distributed", distributed.get_rank(), distributed.get_world_size()
    jax = sys.modules.get("jax")
    if jax is not None and getattr(jax.distributed, "is_initialized", bool)():
        yield "jax.distributed", jax.process_index(), jax.process_count()
    if (config := os.environ.get("TF_CONFIG")) is not None:
        yield "TF_CONFIG", *_of_tensorflow(config)
    for rank, size in _VARIABLES:
        if rank in os.environ and size in os.environ:
            try:
                yield f"{rank} and {size}", int(os.environ[rank]), int(os.environ[size])
            except ValueError as exc:
                raise InvalidArgumentError(
                    f"{rank} and {size} must be whole numbers, got {os.environ[rank]!r} and {os.environ[size]!r}"
                ) from exc


def _of_tensorflow(config: str) -> tuple[int, int]:
    """Return (rank, world_size) of ``tf.distribute``'s cluster: the chief first, then the workers."""
    try:
        parsed = json.loads(config)
        cluster, task = parsed.get("cluster", {}), parsed.get("task", {})
        n_chiefs, n_workers = len(cluster.get("chief", [])), len(cluster.get("worker", []))
        kind, index = task.get("type", "worker"), int(task.get("index", 0))
    except (ValueError, AttributeError, TypeError) as exc:
        raise InvalidArgumentError(f"TF_CONFIG must be what tf.distribute takes, got {config!r}") from exc
    if kind not in ("chief", "worker") or not n_chiefs + n_workers:
        return 0, 1  # an evaluator, or no cluster at all, reads everything
    return index + (n_chiefs if kind == "worker" else 0), n_chiefs + n_workers

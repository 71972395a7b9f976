"""Runs functions in processes that are killed: at a random moment, at the n-th change of the disk, or by themselves.

One process imports everything once and forks for each run, so that thirty of them take seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = ("pwrite", "replace", "rename", "unlink", "rmdir", "ftruncate", "mkdir")


class Runner:
    """Runs ``module.function(**arguments)`` in forked processes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, call: str, after_s: float | None = None, at_change: int | None = None, **arguments: Any) -> str:
        """Return "done", "killed", or what was raised; killed after a time, or just before a change of the disk."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"call": call, "after_s": after_s, "at_change": at_change, "arguments": arguments}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def runner(**environment: str) -> Iterator[Runner]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **environment}
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    ) as process:
        yield Runner(process)
        assert process.stdin is not None
        process.stdin.close()


def _kill_at(change: int) -> None:
    """Have this process killed just before its n-th change of the disk."""
    count = 0

    def counted(real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == change:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def _child(order: dict[str, Any], channel: int) -> None:
    module, _, name = order["call"].rpartition(".")
    function = getattr(sys.modules[module], name)
    if order["at_change"] is not None:
        _kill_at(order["at_change"])
    os.write(channel, b"began\n")
    try:
        function(**order["arguments"])
        os.write(channel, b"done")
    except BaseException as exc:
        os.write(channel, f"{type(exc).__name__}: {exc}".replace("\n", " ").encode())


def _serve() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        __import__(order["call"].rpartition(".")[0])
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.close(read)
            _child(order, write)
            os._exit(0)
        os.close(write)
        assert os.read(read, 6) == b"began\n"
        if order["after_s"] is not None:
            time.sleep(order["after_s"])
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(read) as pipe:
            print(pipe.read() or "killed", flush=True)


if __name__ == "__main__":
    _serve()

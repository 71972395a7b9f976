"""Locks after a fork: a thread that stayed in the parent may hold one for ever, so a child gets new ones."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from oocload.errors import ClosedError


class Renewable(Protocol):
    """What has locks of its own."""

    def renew_locks(self) -> None:
        """Replace the locks; called in a forked child, where no other thread runs."""
        ...


_known: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_child(owner: Renewable) -> None:
    """Have ``owner.renew_locks()`` called in every forked child from now on."""
    _known.add(owner)


def check_process(pid: int) -> None:
    """Refuse to go on with an iteration that another process began.

    Raises
    ------
    ClosedError
        If this is not the process ``pid``: its threads stayed there.

    """
    if pid != os.getpid():
        raise ClosedError("an iterator must stay in its process, and this one crossed a fork; iterate the loader anew")


def _renew_all() -> None:
    for owner in list(_known):
        owner.renew_locks()


os.register_at_fork(after_in_child=_renew_all)

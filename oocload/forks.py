"""Locks after a fork: a thread that stayed in the parent may hold one for ever, so a child gets new ones."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """What has locks of its own."""

    def renew_locks(self) -> None:
        """Replace the locks; called in a forked child, where no other thread runs."""
        ...


_known: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_child(owner: Renewable) -> None:
    """Have ``owner.renew_locks()`` called in every forked child from now on."""
    _known.add(owner)


def _renew_all() -> None:
    for owner in list(_known):
        owner.renew_locks()


os.register_at_fork(after_in_child=_renew_all)

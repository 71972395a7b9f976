"""A store that several loaders read from: it is closed when the last of them is."""

from __future__ import annotations

import threading

from oocload.stores.base import Store


class StoreHandle:
    """Counts the loaders of a store.

    Parameters
    ----------
    store
        The store.
    owned
        Whether the loaders close it; one that was handed in open stays open.

    """

    def __init__(self, store: Store, owned: bool) -> None:
        self.store = store
        self._owned = owned
        self._n_users = 1
        self._lock = threading.RLock()  # a finalizer may come here at any time

    def share(self) -> StoreHandle:
        """Return this handle for one more loader."""
        with self._lock:
            self._n_users += 1
        return self

    def release(self) -> None:
        """Note that a loader is done."""
        with self._lock:
            self._n_users -= 1
            last = self._n_users == 0
        if last and self._owned:
            self.store.close()

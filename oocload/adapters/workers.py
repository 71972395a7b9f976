"""What a worker process of a ``DataLoader`` delivers: its share of the batches, read together with the other workers.

A `DataLoader` asks its workers in turn, so with batch ``i`` from worker ``i % n`` its order is that of the loader.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from oocload.adapters.delivered import setting_out, token_of_fork, watch_forks
from oocload.adapters.sent import Sender, know
from oocload.adapters.tensors import as_tensors, shared_copies
from oocload.errors import StateError
from oocload.loader.batch import Batch
from oocload.loader.board import Board
from oocload.loader.loader import Loader
from oocload.loader.team import Team

if TYPE_CHECKING:
    from oocload.loader.source import BatchSource

_OF_WORKER = "worker"  # in a state: (epoch, number) of the next batch of one worker


class Workers:
    """A dataset's copies in the worker processes of a `DataLoader`, and what they share.

    Parameters
    ----------
    loader
        Of this process: the worker's own copy, or that of the process that starts them.

    """

    def __init__(self, loader: BatchSource) -> None:
        if loader.board is None:
            loader.attach(Board())
        assert loader.board is not None
        self._loader, self._board = loader, loader.board
        self._token = 0  # of who started this process, where it was spawned
        self._loaded: tuple[int, int] | None = None  # (epoch, number) of the batch that the next pass begins with
        self._own: tuple[int, int] | None = None  # of this worker's next batch
        know(self._board)
        watch_forks()

    def __getstate__(self) -> dict[str, Any]:
        token, _ = setting_out()
        return {"loader": self._loader, "board": self._board, "token": token}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["loader"].attach(state["board"])
        self.__init__(state["loader"])  # type: ignore[misc]
        self._token = state["token"]

    def set_out(self, n_ahead: int) -> None:
        """Make room for workers that are about to start, of which each is asked for so many batches ahead."""
        if self._board.owner != os.getpid():  # this process was forked with it, and so may others have been
            if (found := self._board.given()) is not None:
                self._loader.stand_at(found.epoch, found.batch, found.begun)
            self._loader.board = None
            self.__init__(self._loader)  # type: ignore[misc]
        self._board.n_ahead = n_ahead
        self._board.forget_lost()
        self._loader.rest()

    def batches(
        self, worker: int, n_workers: int, seed: int, finish: Callable[[Batch], Batch] | None
    ) -> Iterator[Batch]:
        """Return one worker's batches of a pass; it joins the others at once.

        Parameters
        ----------
        worker, n_workers, seed
            As ``torch.utils.data.get_worker_info`` says.
        finish
            Called with each batch of tensors; what it returns is delivered. None for nothing.

        """
        loader = self._loader
        token = self._token or token_of_fork() or seed - worker
        if not isinstance(loader, Loader) or any(f.dtype.hasobject for f in loader.fields.values()):
            return self._alone(token, finish) if worker == 0 else iter(())
        own, self._loaded = self._loaded, None
        team = Team.join(self._board, token, worker, n_workers, len(loader), own)
        self._own = team.epoch, team.first
        return self._together(loader, team, token, finish)

    def _together(
        self, loader: Loader, team: Team, token: int, finish: Callable[[Batch], Batch] | None
    ) -> Iterator[Batch]:
        epoch, transform = team.epoch, loader.transform
        n_batches = team.n_workers * (2 + team.n_ahead)
        batch_rows = min(loader.batch_size, loader.epoch_rows)
        sender = Sender(self._board, token, loader.fields, batch_rows, n_batches)

        def copied(arrays: Mapping[str, NDArray[Any]], number: int) -> Batch:
            if transform is None:
                return loader.form.build((sender.copies if finish is None else shared_copies)(arrays).__getitem__)
            batch = loader.form.build({name: array.copy() for name, array in arrays.items()}.__getitem__)
            return as_tensors(transform.apply(batch, loader.rows_of(number), epoch, number))

        with closing(loader.batches_of_worker(team, copied)) as batches:
            for number, batch in batches:
                self._own = epoch, number + team.n_workers
                self._board.advance(team.of_pass, number + 1)
                yield batch if finish is None else finish(batch)
                del batch

    # State, in a worker

    def state_dict(self) -> dict[str, Any]:
        """Return where this worker stands."""
        if self._own is None:
            return self._loader.state_dict()
        return {**self._loader.state_dict(epoch=self._own[0], batch=0), _OF_WORKER: list(self._own)}

    def load_state_dict(self, state: dict[str, Any], worker: int) -> None:
        """Have the next pass begin where this worker stood."""
        self._loader.load_state_dict({key: value for key, value in state.items() if key != _OF_WORKER})
        own = state.get(_OF_WORKER)
        stand = self._loader.stand()
        self._loaded = (stand.epoch, stand.batch + worker) if own is None else (int(own[0]), int(own[1]))

    def _alone(self, token: int, finish: Callable[[Batch], Batch] | None) -> Iterator[Batch]:
        """Yield all batches: what is read cannot be shared, or is a mix of several loaders."""
        loader = self._loader
        epoch, number = self._loaded or self._board.place.following
        self._loaded = None
        of_pass = self._board.begin(token, epoch, number, len(loader))
        loader.go_to(epoch, number)
        for batch in loader:
            number += 1
            self._own = epoch, number
            self._board.advance(of_pass, number)
            yield as_tensors(batch) if finish is None else finish(as_tensors(batch))
            del batch
        self._board.end(of_pass)


def check_whole(state: Any) -> None:
    """Refuse the state of one worker where there are none.

    Raises
    ------
    StateError
        If it is one.

    """
    if isinstance(state, Mapping) and _OF_WORKER in state:
        raise StateError(
            "state must be that of the dataset, and is that of one worker of a DataLoader; load it through a "
            "StatefulDataLoader with as many workers as it was saved with"
        )

"""What a worker process of a ``DataLoader`` delivers: its share of the batches, read together with the other workers.

A `DataLoader` asks its workers in turn, so with batch ``i`` from worker ``i % n`` its order is that of the loader.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from oocload.adapters.tensors import as_tensors, shared_copies
from oocload.errors import StateError
from oocload.loader.batch import Batch
from oocload.loader.board import Board
from oocload.loader.loader import Loader
from oocload.loader.team import Team
from oocload.loader.transform import apply

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
            loader.board = Board()
        self._loader, self._board = loader, loader.board
        self._came: tuple[int, int] | None = None  # process, and the loader's turn when this came there
        self._loaded: tuple[int, int] | None = None  # (epoch, number) of the batch that the next pass begins with
        self._own: tuple[int, int] | None = None  # of this worker's next batch

    def __getstate__(self) -> dict[str, Any]:
        return {"loader": self._loader, "board": self._board, "turn": self._loader.stand().turn}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["loader"].board = state["board"]
        self.__init__(state["loader"])  # type: ignore[misc]
        self._came = os.getpid(), state["turn"]

    @property
    def _turn(self) -> int:
        """The turn of the loader that this is a copy of, when it was copied: whoever set out then may move that one."""
        if self._came is None or self._came[0] != os.getpid():
            self._came = os.getpid(), self._loader.stand().turn
        return self._came[1]

    def batches(self, worker: int, n_workers: int, seed: int, finish: Callable[[Batch], Batch]) -> Iterator[Batch]:
        """Return one worker's batches of a pass; it joins the others at once.

        Parameters
        ----------
        worker, n_workers, seed
            As ``torch.utils.data.get_worker_info`` says.
        finish
            Called with each batch of tensors; what it returns is delivered.

        """
        loader = self._loader
        if not isinstance(loader, Loader) or any(f.dtype.hasobject for f in loader.fields.values()):
            return self._alone(finish) if worker == 0 else iter(())
        own, self._loaded = self._loaded, None
        team = Team.join(self._board, seed - worker, worker, n_workers, self._turn, self._begin, own)
        self._own = team.epoch, team.first
        return self._together(loader, team, finish)

    def _begin(self) -> tuple[int, int]:
        found = self._board.position(self._turn)
        if found is None:
            stand = self._loader.stand()
            return stand.epoch, stand.batch
        epoch, batch, begun = found
        return (epoch + 1, 0) if begun else (epoch, batch)

    def _together(self, loader: Loader, team: Team, finish: Callable[[Batch], Batch]) -> Iterator[Batch]:
        turn, epoch = self._turn, team.epoch

        def copied(arrays: Mapping[str, NDArray[Any]], number: int) -> Batch:
            if loader.transform is None:
                return loader.form.build(shared_copies(arrays).__getitem__)
            batch = loader.form.build({name: array.copy() for name, array in arrays.items()}.__getitem__)
            return as_tensors(apply(loader.transform, batch, loader.rows_of(number), epoch, number))

        with closing(loader.batches_of_worker(team, copied)) as batches:
            for number, batch in batches:
                self._own = epoch, number + team.n_workers
                self._board.advance(turn, epoch, number + 1)
                yield finish(batch)
                del batch
        if team.all_done:
            self._board.note(turn, epoch + 1, 0, begun=False)

    # State, in a worker

    def state_dict(self) -> dict[str, Any]:
        """Return where this worker stands."""
        if self._own is None:
            return self._loader.state_dict()
        return {**self._loader.state_dict(epoch=self._own[0], batch=0), _OF_WORKER: list(self._own)}

    def load_state_dict(self, state: dict[str, Any], worker: int) -> None:
        """Have the next pass begin where this worker stood."""
        _ = self._turn  # that of the loader as it came
        self._loader.load_state_dict({key: value for key, value in state.items() if key != _OF_WORKER})
        own = state.get(_OF_WORKER)
        stand = self._loader.stand()
        self._loaded = (stand.epoch, stand.batch + worker) if own is None else (int(own[0]), int(own[1]))

    def _alone(self, finish: Callable[[Batch], Batch]) -> Iterator[Batch]:
        """Yield all batches: what is read cannot be shared, or is a mix of several loaders."""
        loader, turn = self._loader, self._turn
        epoch, number = self._loaded or self._begin()
        self._loaded = None
        self._board.note(turn, epoch, number, begun=True)
        loader.go_to(epoch, number)
        for batch in loader:
            number += 1
            self._own = epoch, number
            self._board.advance(turn, epoch, number)
            yield finish(as_tensors(batch))
            del batch
        self._board.note(turn, epoch + 1, 0, begun=False)


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

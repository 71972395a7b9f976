"""Counting where a model is, against Keras' own rule written out, step by step."""

from hypothesis import given
from hypothesis import strategies as st

from oocload.adapters.progress import Progress
from oocload.adapters.replay import Base

counts = st.integers(1, 30)


def keras_epochs(n_batches: int, steps: int, base: Base, n_epochs: int) -> list[list[Base]]:
    """Return the batches of each epoch as `EpochIterator` gives them: it begins a pass where one is at its end."""
    epochs, done = [], 0
    for _ in range(n_epochs):
        epoch = []
        for _ in range(steps):
            if done == n_batches:
                break
            epoch.append(base.plus(done, n_batches))
            done += 1
        if done == n_batches:
            base, done = base.plus(n_batches, n_batches), 0
        epochs.append(epoch)
    return epochs


def resumed_epochs(progress: Progress, lengths: dict[tuple[int, int], int], n_epochs: int) -> list[list[Base]]:
    """Return the batches of each epoch where Keras begins anew, with passes of the given lengths."""
    n_batches, at = progress.n_batches, progress.position
    left, steps_seen, epochs = 0, 0, []  # of the generator under way, and what Keras counts
    first = True
    for _ in range(n_epochs):
        epoch = []
        for _ in range(progress.steps):
            if first or steps_seen >= n_batches:
                if steps_seen >= n_batches and not first and epoch:
                    break
                left, steps_seen, first = lengths.get(at, n_batches), 0, False
            if not left:  # StopIteration: Keras drops the generator
                first = True
                break
            epoch.append(at)
            at, left, steps_seen = at.plus(1, n_batches), left - 1, steps_seen + 1
        epochs.append(epoch)
    return epochs


@given(counts, counts, st.integers(0, 29), st.integers(0, 60))
def test_a_resumed_run_has_the_epochs_of_one_that_is_not(n_batches: int, steps: int, begin: int, stop: int) -> None:
    steps, base = min(steps, n_batches), Base(2, begin % n_batches)
    whole = keras_epochs(n_batches, steps, base, 12)
    progress = Progress(n_batches, steps, base)
    for _ in range(stop):
        progress.advance(1)
        if not progress.left:
            progress.end_epoch()
    flat = [batch for epoch in whole for batch in epoch]
    if stop >= len(flat):
        return
    assert progress.position == flat[stop]
    rest = [list(epoch) for epoch in whole[progress.epoch :]]
    rest[0] = rest[0][progress.step :]
    assert resumed_epochs(progress, progress.lengths(), len(rest)) == rest

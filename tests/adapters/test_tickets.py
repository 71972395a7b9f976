from hypothesis import given
from hypothesis import strategies as st

from oocload.adapters.tickets import Ticket, Tickets


def take_all(tickets: Tickets, indices: list[int]) -> list[Ticket]:
    return [tickets.take(i) for i in indices]


@given(n=st.integers(6, 60), seed=st.randoms(), n_probes=st.integers(0, 4), n_passes=st.integers(1, 4))
def test_each_pass_yields_every_batch_once_in_order(n: int, seed: object, n_probes: int, n_passes: int) -> None:
    tickets = Tickets(n)
    take_all(tickets, list(range(n_probes)))
    tickets.boundary()
    seen = []
    for _ in range(n_passes):
        indices = list(range(n))
        seed.shuffle(indices)
        seen += take_all(tickets, indices)
        tickets.boundary()
    assert [(t.n_pass, t.batch) for t in seen] == [(p, b) for p in range(n_passes) for b in range(n)]
    assert [t.rewound for t in seen] == [n_probes > 0, *([False] * (len(seen) - 1))]


def test_probes_without_a_boundary_rewind_too() -> None:
    tickets = Tickets(10)
    take_all(tickets, [0, 1])
    assert take_all(tickets, [0, 1, 2]) == [Ticket(0, 0, True), Ticket(0, 1, False), Ticket(0, 2, False)]


def test_an_epoch_that_ends_early_goes_on_in_the_same_pass() -> None:
    tickets = Tickets(20)
    first = take_all(tickets, list(range(8)))
    tickets.boundary()
    rest = take_all(tickets, list(range(8, 20)))
    assert [t.batch for t in [*first, *rest]] == list(range(20))
    assert {t.n_pass for t in [*first, *rest]} == {0}


def test_a_pass_that_begins_anew_in_order_is_a_new_one() -> None:
    tickets = Tickets(20)
    take_all(tickets, list(range(9)))
    assert tickets.take(0) == Ticket(1, 0, False)


def test_permuted_epochs_that_end_early_yield_every_batch_all_the_same() -> None:
    """Keras permutes anew for each of its epochs, so that indices come again before all have come."""
    tickets = Tickets(20)
    first = take_all(tickets, [7, 3, 12, 0, 5, 9, 1, 2])
    tickets.boundary()
    second = take_all(tickets, [3, 8, 0, 19, 4, 6, 7, 5])
    tickets.boundary()
    third = take_all(tickets, [0, 1, 2, 3])
    assert [t.batch for t in [*first, *second, *third]] == list(range(20))
    assert {t.n_pass for t in [*first, *second, *third]} == {0}
    assert tickets.take(6) == Ticket(1, 0, False)

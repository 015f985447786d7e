from __future__ import annotations

from offloop.cli.demo import account


def test_what_the_library_reports_explains_a_loss() -> None:
    """Dropped records count by reason over all levels, those still held at the end too; the rest is unreported."""
    counts = {"rounds": {"offloop": {"records": 4, "messages": 5, "duplicates": 1}}}
    said = {"dropped": {"overflow": {"INFO": 2, "ERROR": 1}}, "pending": 2}

    balance = account("offloop", 10, counts, said)

    assert (balance.delivered, balance.lost, balance.duplicates) == (4, 6, 1)
    assert balance.reported == {"overflow": 3, "not sent in time": 2}
    assert balance.unreported == 1


def test_destination_that_got_nothing_lost_all() -> None:
    """A round that a server never heard of has lost every record."""
    assert account("queue", 3, {"rounds": {}}, {}).unreported == 3

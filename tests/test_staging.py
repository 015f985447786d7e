from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from threading import Thread
from typing import Any

from offloop.staging import Item, Staging


def item(message: str, levelno: int = logging.INFO) -> dict[str, Any]:
    return {"msg": message, "levelno": levelno}


def messages(items: Staging | list[Item]) -> list[object]:
    return [one["msg"] if isinstance(one, dict) else getattr(one, "msg", one) for one in items]


class Watched(logging.LogRecord):
    """A record that does something while its level is looked at."""

    def __init__(self, does: Callable[[], object]) -> None:
        super().__init__("app", logging.INFO, "", 0, "watched", (), None)
        self._does = does

    def __getattribute__(self, name: str) -> Any:
        if name == "levelno" and "_does" in self.__dict__:
            self._does()
        return super().__getattribute__(name)


def test_who_evicts_is_alone() -> None:
    """Between the look at the oldest and its removal no other thread puts an ERROR in its place."""
    staged = Staging()
    seen: list[Item | None] = []

    def meanwhile() -> None:
        thread = Thread(target=lambda: seen.append(staged.evict(logging.INFO)))
        thread.start()
        thread.join()

    staged.extend([Watched(meanwhile), item("error 1", logging.ERROR), item("error 2", logging.ERROR), item("info")])
    victim = staged.evict(logging.INFO)
    assert isinstance(victim, logging.LogRecord)
    assert seen == [None]
    assert messages(staged) == ["error 1", "error 2", "info"]


def test_nothing_is_taken_amid_an_eviction() -> None:
    """The listener gets nothing for the moment, rather than a record that is not the oldest any more."""
    staged = Staging()
    hand: list[Item] = []
    moved: list[int] = []
    staged.extend([Watched(lambda: moved.append(staged.move(hand, 9))), item("b")])
    staged.evict(logging.INFO)
    assert moved == [0]
    assert staged.move(hand, 9) == 1
    assert messages(hand) == ["b"]


def test_eviction_looks_behind_errors_while_others_append() -> None:
    """The oldest below ERROR goes; one that is appended amid the look does no harm."""
    staged = Staging()
    staged.append(item("error", logging.ERROR))
    staged.append(Watched(lambda: staged.append(item("new"))))
    assert isinstance(staged.evict(logging.INFO), logging.LogRecord)
    assert messages(staged) == ["error", "new"]
    staged.evict(logging.INFO)
    assert staged.evict(logging.INFO) is None
    assert staged.evict(logging.ERROR) == item("error", logging.ERROR)


def test_signal_handler_amid_an_eviction_goes_without() -> None:
    """It holds nothing up, least of all itself."""
    staged = Staging()
    evicted: list[Item | None] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: evicted.append(staged.evict(logging.INFO)))
    try:
        staged.extend([Watched(lambda: signal.raise_signal(signal.SIGALRM)), item("b")])
        staged.evict(logging.INFO)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert evicted == [None]
    assert messages(staged) == ["b"]


def test_limit_of_a_hand() -> None:
    """No more are moved than the hand may hold."""
    staged = Staging()
    staged.extend(item(str(number)) for number in range(5))
    hand: list[Item] = [item("first")]
    assert staged.move(hand, 3) == 2
    assert messages(hand) == ["first", "0", "1"]
    assert len(staged) == 3

"""Which lanes a listener has, what each is called, and which hand over to which. Decided once, before it runs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from offloop.dead_letters import DeadLetterFile
from offloop.errors import ConfigError
from offloop.lane import Lane
from offloop.sink import DeadLetters, Destination, Sink, is_destination
from offloop.sinks import as_sink
from offloop.spool import Spool

__all__ = ["Wiring"]

Targets = Callable[[Sink], Sequence[Sink]]


class Wiring:
    """The lanes of some sinks, and of those that they fall back on or hand their dead letters to.

    Attributes:
        sinks: The sinks that get what is logged.
        routed: Their lanes.
        lanes: All lanes. One sink has one lane, however many name it.
        depth: How many lanes a record may pass at most before it comes to the last.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        fallback: Destination | None,
        spool: Spool | None,
        *,
        respect_level: bool,
    ) -> None:
        """Look at all there is, and connect it.

        Args:
            destinations: Sinks, plain handlers and callables.
            fallback: For those of them that have none of their own, and are not it, nor what it hands over to.
            spool: For those of the destinations that have none of their own.
            respect_level: Whether a record below a sink's level is kept from it.

        Raises:
            ConfigError: Something that is no sink, two sinks of one name, or one that would hand over to itself.
        """
        self.sinks: tuple[Sink, ...] = tuple(map(as_sink, destinations))
        self._known: list[tuple[object, Sink]] = list(zip(destinations, self.sinks, strict=True))
        self._fallbacks: dict[Sink, Sink] = {}
        self._dead_letters: dict[Sink, Sink] = {}
        for sink in self.sinks:
            self._explore(sink)
        if fallback is not None:
            self._fall_back_on(self._sink_of(fallback if is_destination(fallback) else as_sink(fallback)))
        sinks = list(dict.fromkeys(sink for _, sink in self._known))
        for sink in sinks:
            _check_acyclic(sink, self._targets, ())
        names = _names([*self.sinks, *sinks[len(self.sinks) :]])
        spools = [sink.spool or (spool if sink in self.sinks else None) for sink in sinks]
        self.lanes = [_lane(*one) for one in zip(sinks, names, spools, strict=True)]
        self.routed = self.lanes[: len(self.sinks)]
        self._connect(dict(zip(sinks, self.lanes, strict=True)), respect_level)
        self.depth = max((lane.depth for lane in self.lanes), default=0)

    def _connect(self, lanes: dict[Sink, Lane], respect_level: bool) -> None:  # noqa: FBT001 - the caller names it
        def fallbacks(sink: Sink) -> Sequence[Sink]:
            return [self._fallbacks[sink]] if sink in self._fallbacks else []

        def givers(sink: Sink) -> Sequence[Sink]:
            return [giver for giver in lanes if sink in self._targets(giver)]

        for sink, lane in lanes.items():
            lane.respects_level = respect_level
            # A copy that was handed over is nobody else's: only what is routed is worth encoding once for all.
            lane.siblings = [other for other in self.sinks if other is not sink] if lane in self.routed else ()
            lane.givers = [lanes[giver] for giver in givers(sink)]
            lane.depth = _longest(sink, givers)
            above = _longest(sink, lambda sink: [giver for giver in lanes if sink in fallbacks(giver)])
            lane.share = (above + 1) / (above + 1 + _longest(sink, fallbacks))
            if sink in self._fallbacks:
                lane.porter.fallback = lanes[self._fallbacks[sink]]
            if sink in self._dead_letters:
                lane.porter.dead_letters = lanes[self._dead_letters[sink]]

    def _explore(self, sink: Sink) -> None:
        """Look at the sinks that this one names, and at those that they name."""
        if sink in self._fallbacks or sink in self._dead_letters:
            return
        for option, table in ((sink.fallback, self._fallbacks), (sink.dead_letters, self._dead_letters)):
            if option is not None:
                table[sink] = self._sink_of(option)
        for target in self._targets(sink):
            self._explore(target)

    def _fall_back_on(self, fallback: Sink) -> None:
        self._explore(fallback)
        reached = {fallback}
        ahead = [fallback]
        while ahead:
            targets = [target for target in self._targets(ahead.pop()) if target not in reached]
            reached.update(targets)
            ahead += targets
        for sink in self.sinks:
            if sink not in reached:
                self._fallbacks.setdefault(sink, fallback)

    def _targets(self, sink: Sink) -> Sequence[Sink]:
        return [table[sink] for table in (self._fallbacks, self._dead_letters) if sink in table]

    def _sink_of(self, destination: DeadLetters) -> Sink:
        """The sink of a destination: the same for the same one, whoever names it."""
        if isinstance(destination, (str, os.PathLike)):
            return self._file(Path(os.fspath(destination)).absolute())
        for given, sink in self._known:
            if sink is destination or _is_same(given, destination):
                return sink
        sink = as_sink(destination)
        self._known.append((destination, sink))
        return sink

    def _file(self, path: Path) -> Sink:
        for given, sink in self._known:
            if given == path:
                return sink
        sink = DeadLetterFile(path)
        self._known.append((path, sink))
        return sink


def _is_same(one: object, other: object) -> bool:
    """Bound methods are made anew each time they are named; handlers and sinks are what they are."""
    return one is other or (
        not isinstance(one, logging.Handler) and not isinstance(other, logging.Handler) and one == other
    )


def _check_acyclic(sink: Sink, targets: Targets, path: tuple[Sink, ...]) -> None:
    if sink in path:
        around = " -> ".join(map(repr, (*path[path.index(sink) :], sink)))
        msg = f"a sink can't hand over to itself, by fallback or dead_letters: {around}; take one of these out"
        raise ConfigError(msg)
    for target in targets(sink):
        _check_acyclic(target, targets, (*path, sink))


def _longest(sink: Sink, neighbours: Targets) -> int:
    """How many steps the longest way from here has."""
    return max((1 + _longest(other, neighbours) for other in neighbours(sink)), default=0)


def _lane(sink: Sink, name: str, spool: Spool | None) -> Lane:
    """The lane of a sink."""
    if spool is None:
        return Lane(sink, name)
    # SQLite and what it takes to write a record down: nobody pays for importing it who has no spool.
    from offloop.spooled_lane import SpooledLane

    return SpooledLane(sink, name, spool)


def _names(sinks: Sequence[Sink]) -> list[str]:
    """A name for each sink: its own, or its class's, made unique by a number.

    Raises:
        ConfigError: Two sinks were given one name, or one sink was given twice.
    """
    names: list[str] = []
    given = [sink.name for sink in sinks if sink.name]
    for sink in sinks:
        if given.count(sink.name or "") > 1 or sum(other is sink for other in sinks) > 1:
            msg = f"two sinks have the name {sink.name or type(sink).__name__!r}: give each its own name="
            raise ConfigError(msg)
        name, number = sink.name or sink.default_name(), 1
        while name in names or (not sink.name and name in given):
            number += 1
            name = f"{sink.default_name()}-{number}"
        names.append(name)
    return names

"""Whether a sink is to be tried at all: closed, open, or probing. Pure: it is told what happened, and asks a clock.

Only a delivery closes it, not a connection: a peer that accepts and closes is asked once an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from offloop.policies import Breaker

__all__ = ["Circuit", "State"]

State = Literal["closed", "open", "probing"]


class Circuit:
    """The state of one sink's breaker in one event loop.

    ```text
    closed --- `failures` in a row, or a fatal one --> open --- an attempt, from `probe` on --> probing
    probing -- a failure --> open                      probing -- a delivery --> closed
    ```

    Attributes:
        state: Which of the three it is.
    """

    def __init__(self, policy: Breaker, clock: Callable[[], float], longest: float = 0.0) -> None:
        """Begin closed.

        Args:
            policy: When it opens, and for how long.
            clock: Gives the time in seconds.
            longest: Seconds to the next probe after a fatal failure, where the policy says nothing of it.
        """
        self._longest = longest
        self.state: State = "closed"
        self._policy = policy
        self._clock = clock
        self._failures = 0
        self._probe_at = 0.0

    def __repr__(self) -> str:
        return f"<Circuit {self.state}, {self._failures} failures, {self.wait:.1f} s to wait>"

    @property
    def closed(self) -> bool:
        """Whether all goes its usual way."""
        return self.state == "closed"

    @property
    def due(self) -> bool:
        """Whether the next attempt is a probe, and its time has come."""
        return self.state == "open" and self._clock() >= self._probe_at

    @property
    def wait(self) -> float:
        """Seconds until the next attempt may begin."""
        return max(0.0, self._probe_at - self._clock()) if self.state == "open" else 0.0

    def attempt(self) -> bool:
        """An attempt begins; tells whether it is a probe, when that was not said before."""
        if self.state != "open":
            return False
        self.state = "probing"
        return True

    def failed(self, pause: float, *, fatal: bool) -> bool:
        """An attempt failed; tells whether the breaker opened, having been closed.

        Args:
            pause: Seconds that the backoff and the destination ask for: a probe is not earlier.
            fatal: Whether no number of attempts will help.
        """
        self._failures += 1
        was_closed = self.closed
        if was_closed and not fatal and self._failures < self._policy.failures:
            return False
        self.state = "open"
        probe = self._policy.probe
        if probe is None:
            probe = self._longest if fatal else 0.0
        self._probe_at = self._clock() + max(pause, probe)
        return was_closed

    def answered(self) -> None:
        """The probe neither failed nor was taken, but refused: the sink is there, and may be probed again at once."""
        if self.state == "probing":
            self.state = "open"
            self.hasten()

    def hasten(self) -> None:
        """The next probe may come at once."""
        self._probe_at = self._clock()

    def delivered(self) -> bool:
        """The destination took something; tells whether that closed the breaker."""
        was_closed, self.state, self._failures = self.closed, "closed", 0
        return not was_closed

"""`SendmailSink`: mails through the `sendmail` command of this machine."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Unpack

from offloop.errors import ConfigError, TemporaryFailure
from offloop.mailing.command import Run
from offloop.mailing.outcome import Outcome
from offloop.mailing.served import step_timeout
from offloop.mailing.sink import MailOptions, MailSink
from offloop.mailing.wire import Envelope
from offloop.worker import Worker

__all__ = ["SendmailSink"]


class SendmailSink(MailSink):
    """Gives each mail to a command, as Postfix, exim, msmtp and others provide it: no server, password or TLS.

    The command is started in a thread, and killed where it takes too long or the attempt is given up. Whether a mail
    that was given to it arrives is its business: it has a queue and sends bounces to the `sender`.
    """

    def __init__(
        self,
        command: str | Sequence[str] = "/usr/sbin/sendmail",
        *,
        sender: str,
        to: str | Sequence[str],
        **mail: Unpack[MailOptions],
    ) -> None:
        """Say which command, and who writes to whom. Nothing is started yet.

        Args:
            command: A program, or one with its first arguments: `["/usr/bin/msmtp", "-a", "work"]`. There is no shell.
                It is given `-i -f SENDER -- RECIPIENT...` and the mail, with LF at the end of lines.
            sender: `app@example.org`, or `App <app@example.org>`.
            to: One such address, or several.
            **mail: As for every sink that sends mails (`MailSink`), and for every `Sink`. `send_timeout` is 60 s here
                and bounds each step by itself: building a mail, and a run of the command.

        Raises:
            ConfigError: A value can't be used.
        """
        owner = f"{type(self).__name__}: "
        self._timeout = step_timeout(owner, mail)
        mail["send_timeout"] = math.inf  # each step has a limit of its own
        super().__init__(sender=sender, to=to, building_timeout=self._timeout, **mail)
        self._command = _parts(owner, command)
        self._runner = Worker("offloop-sendmail")
        self._runs: set[Run] = set()

    async def open(self) -> None:
        """Nothing is kept open; a command that an earlier attempt left is killed."""
        self._give_up(*self._runs)

    async def ready(self) -> None:
        """There is no limit that a command could tell."""

    async def deliver(self, envelope: Envelope) -> Outcome:
        """Run the command. Returns when it has taken the mail.

        On cancellation, and after `send_timeout`, it is killed; it may have taken the mail, and gets it again with the
        same `Message-ID`.
        """
        run = Run([*self._command, "-i", "-f", envelope.sender, "--", *envelope.recipients])
        self._runs.add(run)
        try:
            async with asyncio.timeout(self._timeout):
                await self._runner.run(run, envelope.mail)
        except TimeoutError as error:
            self._give_up(run)
            msg = f"{self!r}: the command was not done after {self._timeout:g} s and was killed"
            raise TemporaryFailure(msg) from error
        except RuntimeError as error:
            msg = f"{self!r}: the command can't be started: {error}"
            raise TemporaryFailure(msg) from error
        except asyncio.CancelledError:
            self._give_up(run)
            raise
        finally:
            self._runs.discard(run)
        run.judge(repr(self))
        return Outcome()

    async def aclose(self) -> None:
        """Kill a command that still runs. Idempotent; `open` may follow."""
        self._give_up(*self._runs)
        self._runner.close()
        await super().aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._command[0]}{' running' if self._runs else ''}>"

    def _give_up(self, *runs: Run) -> None:
        for run in runs:
            run.kill()
            # Its thread waits for its end, which for a command that hangs in the kernel may never come.
            self._runner.close()


def _parts(owner: str, command: Any) -> list[str]:
    parts: list[Any] = []
    with suppress(TypeError):
        parts = [command] if isinstance(command, str) else list(command)
    if not parts or not all(isinstance(part, str) and part and "\0" not in part for part in parts):
        wanted = "a program like /usr/sbin/sendmail, or a list of it and its arguments"
        msg = f"{owner}command: expected {wanted}, got {command!r}"
        raise ConfigError(msg)
    return parts

"""One conversation with a mail server: one mail after another over a connection that was opened.

Every failure leaves here as one of offloop's own, with what the server said and without anything secret.

Formats: RFC 5321 (SMTP), RFC 1870 (SIZE), RFC 2920 (PIPELINING), RFC 6531 (SMTPUTF8), RFC 2033 (LMTP).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from offloop.errors import DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.access import Access
from offloop.mailing.dialogue import Reply
from offloop.mailing.opening import Opened
from offloop.mailing.outcome import Interrupted, Outcome, all_failed, settled
from offloop.mailing.wire import Envelope, Mail

__all__ = ["LocalSession", "Session"]

_GOODBYE = 1.0  # seconds for the answer to QUIT

_DONE = 250
_START_INPUT = 354
_CLOSING = 421


class Session:
    """A server that takes mails: for SMTP, which answers to a mail once."""

    def __init__(self, access: Access, server: Opened) -> None:
        """Take over a connection that was opened."""
        self._access = access
        self._line, self._extensions = server
        self._loop = asyncio.get_running_loop()
        self._ahead = 0  # commands that were written and not yet answered
        self._begun = False  # a mail of which the server may remember a part
        self._in_step = True
        self.delivered = 0
        """Mails that the server has taken."""
        self.data_sent = False
        """Whether the server may have taken the last mail without our knowing."""

    @property
    def is_connected(self) -> bool:
        """Whether neither side has closed it, as far as is known. Never in a forked child: it is the parent's."""
        return self._line.is_connected

    @property
    def is_ready(self) -> bool:
        """Whether it takes another mail: it is connected, and all that was asked is answered."""
        return self._in_step and self.is_connected

    @property
    def max_bytes(self) -> int | None:
        """The largest mail the server says it takes, None if it says nothing."""
        size = self._extensions.get("size", "").strip()
        return int(size) if size.isascii() and size.isdecimal() and int(size) else None

    async def deliver(self, envelope: Envelope) -> Outcome:
        """Hand over one mail. After a refusal the connection `is_ready` for another, unless the server left.

        Returns:
            Who does not get it, or later, while others do.

        Raises:
            TemporaryFailure: No answer, a broken connection, or a reply of the 400s to the mail or to a recipient where
                no other gets it; with `retry_after` if the server goes on listening.
            PermanentFailure: A reply of the 500s to the mail, or to all its recipients.
            SinkFailure: The server wants no mail from us (the sender, AUTH), or can't take such addresses.
        """
        self.data_sent = False
        commands = self._commands(envelope)
        if self._line.heard is not None:
            # Said while nobody asked, as a rule before it hangs up: no answer would be to its question any more.
            self.abort()
            raise TemporaryFailure(
                f"{self._access.where}: the server left: {self._access.clean(self._line.heard.text)}"
            )
        self._in_step = False
        try:
            failures = await self._offered(envelope, commands)
            taken = [recipient for recipient in envelope.recipients if recipient not in failures]
            with self._access.failures("DATA"):
                if await self._written(envelope.mail):
                    failures |= await self._verdicts(taken)
                else:  # refused while it was written: what is missing of it would be taken for commands
                    raise self._judged("DATA", await self._line.reply(self._access.timeout))
        except DeliveryError:
            if self._line.heard is not None:
                self._in_step = False
            raise
        self._in_step, self._begun = True, False
        outcome = settled(envelope, failures)
        self.delivered += 1
        return outcome

    async def quit(self) -> None:
        """Say goodbye, for a second at most, and let go of the connection."""
        if self._loop is asyncio.get_running_loop() and self._in_step:
            await self._line.quit(_GOODBYE)
        else:
            self.abort()

    def leave(self) -> None:
        """Let go of the connection without waiting: QUIT is written, its answer not read."""
        self._line.leave()

    def abort(self) -> None:
        """Let go of the connection at once; also when its event loop is gone. In a forked child nothing is touched."""
        self._line.abort()

    # -- up to the mail ----------------------------------------------------------------------------------------------

    def _commands(self, envelope: Envelope) -> list[bytes]:
        options = [f"SIZE={envelope.mail.size}"] if "size" in self._extensions else []
        if envelope.utf8:
            if "smtputf8" not in self._extensions:
                msg = "an address that is not ASCII needs SMTPUTF8, which the server does not offer"
                raise SinkFailure(f"{self._access.where}: {msg}")
            options += ["SMTPUTF8", "BODY=8BITMIME"]
        lines = ["RSET"] if self._begun else []
        lines.append(" ".join([f"MAIL FROM:<{envelope.sender}>", *options]))
        lines += [f"RCPT TO:<{recipient}>" for recipient in envelope.recipients]
        lines.append("DATA")
        return [f"{line}\r\n".encode() for line in lines]

    async def _offered(self, envelope: Envelope, commands: Sequence[bytes]) -> dict[str, DeliveryError]:
        """Come as far as the server's word to write the mail; gives the recipients that were refused.

        Raises:
            DeliveryError: It is not to be written.
        """
        if "pipelining" in self._extensions:
            with self._access.failures("MAIL"):
                self._line.write(b"".join(commands))
            self._ahead = len(commands)
        *reset, mail = commands[: -len(envelope.recipients) - 1]
        for command in reset:
            if (failed := await self._asked("RSET", command)) is not None:
                self.abort()
                raise failed
        self._begun = True
        failures: dict[str, DeliveryError] = {}
        failed = await self._asked("MAIL", mail, about_us=True)
        try:
            if failed is None or self._ahead:
                failures = await self._named(envelope.recipients, commands[-len(envelope.recipients) - 1 : -1])
            if failed is None and len(failures) == len(envelope.recipients):
                failed = all_failed(failures)
            if failed is None or self._ahead:
                failed = await self._asked_for_data(commands[-1], failed)
        except TemporaryFailure as lost:
            if failed is None:
                raise
            # A server that refuses and hangs up has said why.
            raise failed from lost
        if failed is not None:
            self._in_step = self.is_connected
            raise failed
        return failures

    async def _named(self, recipients: Sequence[str], commands: Sequence[bytes]) -> dict[str, DeliveryError]:
        """Name the recipients; gives those that were refused."""
        failures: dict[str, DeliveryError] = {}
        for recipient, command in zip(recipients, commands, strict=True):
            try:
                refused = await self._asked(f"RCPT {recipient}", command)
            except TemporaryFailure as lost:
                # Whoever it will not have is not named again: it may be what it hung up for.
                lasting = {name: str(why) for name, why in failures.items() if isinstance(why, PermanentFailure)}
                raise (Interrupted(str(lost), lasting) if lasting else lost) from lost.__cause__
            if refused is not None:
                failures[recipient] = refused
        return failures

    async def _asked(
        self, step: str, command: bytes, *, code: int = _DONE, about_us: bool = False
    ) -> DeliveryError | None:
        """Give a command, if it was not given already, and hear the answer; gives the refusal, if it is one."""
        with self._access.failures(step):
            if self._ahead:
                self._ahead -= 1
            else:
                self._line.write(command)
            reply = await self._line.reply(self._access.timeout)
        if reply.code == code or (step.startswith("RCPT") and reply.code // 10 == code // 10):
            return None
        refused = self._judged(step, reply, about_us=about_us)
        if reply.code == _CLOSING:
            self.abort()
            raise refused
        return refused

    async def _asked_for_data(self, command: bytes, failed: DeliveryError | None) -> DeliveryError | None:
        """Ask to write the mail, or hear what was said to that where it is not to be written any more."""
        refused = await self._asked("DATA", command, code=_START_INPUT)
        if failed is not None and refused is None:
            await self._called_off()
        return failed or refused

    async def _called_off(self) -> None:
        """End a mail for nobody, which the server waits for all the same (RFC 2920, section 3.1)."""
        with self._access.failures("DATA"):
            self._line.write(b".\r\n")
            await self._line.reply(self._access.timeout)

    def _judged(self, step: str, reply: Reply, *, about_us: bool = False) -> DeliveryError:
        return self._access.refusal(step, reply, about_us=about_us, mail=True)

    # -- the mail ----------------------------------------------------------------------------------------------------

    async def _written(self, mail: Mail) -> bool:
        """Write the mail piece by piece; False if the server answered before it had all."""
        for piece in (*mail.pieces, b".\r\n"):
            await self._line.flushed(self._access.timeout)
            if self._line.heard is not None:
                return False
            self.data_sent = piece == b".\r\n"
            self._line.write(piece)
        return True

    async def _verdicts(self, taken: Sequence[str]) -> dict[str, DeliveryError]:
        """What the server says of the whole mail: it may deliver it first (RFC 5321, section 4.5.3.2.6)."""
        reply = await self._answer()
        if reply.code == _DONE:
            return {}
        self._in_step = reply.code != _CLOSING
        if not self._in_step:
            self.abort()
        self._begun = False
        raise self._judged("DATA", reply)

    async def _answer(self) -> Reply:
        timeout = self._access.data_timeout
        try:
            return await self._line.reply(timeout)
        except TimeoutError as error:
            msg = f"Timed out: no answer to the mail for {timeout:g} s"
            raise TimeoutError(msg) from error


class LocalSession(Session):
    """For LMTP, which answers to a mail once for each recipient."""

    async def _verdicts(self, taken: Sequence[str]) -> dict[str, DeliveryError]:
        failures: dict[str, DeliveryError] = {}
        for position, recipient in enumerate(taken):
            try:
                with self._access.failures("DATA"):
                    reply = await self._answer()
            except TemporaryFailure as lost:
                if position == len(failures):  # nobody has got it
                    raise
                self.abort()
                return failures | dict.fromkeys(taken[position:], lost)
            if reply.code != _DONE:
                failures[recipient] = self._judged(f"DATA for {recipient}", reply)
        return failures

    async def _called_off(self) -> None:
        # As many answers as recipients, which is none.
        self._in_step = False
        self.abort()

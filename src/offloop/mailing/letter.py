"""A mail's headers and parts as bytes. Nothing that was logged can forge the one or end the other.

Pure: the same parts give the same bytes in every attempt. Mails are built without `email.message`: its folding and
flattening keep the interpreter for milliseconds, and some of its versions decode an encoded word in a value into a
header of its own.

Formats: RFC 5322 (message, threads), RFC 2045 to 2047 (MIME), RFC 2183 (attachments), RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from offloop.mailing.headers import Mailbox, encoded, printable
from offloop.mailing.redaction import Redactor

__all__ = ["ATTACHMENT", "Head", "Letter", "Parts", "framing", "joined", "quoted", "quoted_all", "written"]

ATTACHMENT = "records.txt.gz"

_SLICE = 512  # characters worked on at a time: some microseconds
_PIECE_BYTES = 64 * 1024
_BASE64_LINE = 57  # bytes to a line of 76 characters
_BASE64_BYTES = _BASE64_LINE * 128


@dataclass(frozen=True, slots=True)
class Letter:
    """What all mails of a sink have in common.

    Attributes:
        sender: Whom they come from.
        host: What they call this machine.
        app: What they call the application,
        release: and which one of it runs; may be empty.
        html: Whether there is an HTML part beside the text.
        redact: Hides secrets.
    """

    sender: Mailbox
    host: str
    app: str
    release: str
    html: bool
    redact: Redactor


@dataclass(frozen=True, slots=True)
class Head:
    """What one mail's headers say.

    Attributes:
        to: For whom it is.
        subject: One printable line.
        key: Names it in all attempts.
        created: In seconds since the epoch.
        threads: What the threads are called to which it belongs, the first one first.
    """

    to: tuple[Mailbox, ...]
    subject: str
    key: str
    created: float
    threads: tuple[str, ...] = ()

    def lines(self, letter: Letter) -> bytes:
        """All headers but those of the first part."""
        date = datetime.fromtimestamp(int(self.created), UTC)
        domain = letter.sender.domain
        lines = [
            f"From: {letter.sender.header}",
            "To: " + ",\r\n ".join(mailbox.header for mailbox in self.to),
            f"Subject: {encoded(self.subject)}",
            f"Date: {format_datetime(date)}",
            f"Message-ID: <{self.key}@{domain}>",
        ]
        if self.threads:
            # The root of a thread is a mail that never was: whichever of its mails comes first, they find each other.
            roots = [f"<{thread}@{domain}>" for thread in self.threads]
            lines += [f"In-Reply-To: {roots[0]}", "References: " + "\r\n ".join(roots)]
        lines += [
            # RFC 3834, section 5: nobody's out-of-office program is to answer. Exchange wants a word of its own.
            "Auto-Submitted: auto-generated",
            "X-Auto-Response-Suppress: OOF, AutoReply",
            "MIME-Version: 1.0",
        ]
        return "".join(f"{line}\r\n" for line in lines).encode()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a mail has behind its headers.

    Attributes:
        text: In quoted-printable.
        html: The same. None: there is no such part.
        attachment: Compressed. None: there is none.
    """

    text: Sequence[bytes]
    html: Sequence[bytes] | None = None
    attachment: bytes | None = None


def written(letter: Letter, head: Head, parts: Parts, breathe: Callable[[], object] = bool) -> list[bytes]:
    """The mail with CRLF line ends, of ASCII, in lines that any server takes; in pieces that each begin with a line."""
    return list(joined(_assembled(head.lines(letter), parts, head.key), breathe))


def framing(letter: Letter, head: Head, *, attached: bool) -> int:
    """How many bytes a mail has beside what is in its parts."""
    parts = Parts((), () if letter.html else None, b"" if attached else None)
    return sum(map(len, _assembled(head.lines(letter), parts, head.key)))


def _assembled(headers: bytes, parts: Parts, key: str) -> Iterator[bytes]:
    yield headers
    if parts.attachment is None:
        yield from _bodies(parts, key)
        return
    # Quoted-printable has no "=_", base64 no "=" but at its end: no record can end a part. Nor is one boundary the
    # beginning of the other.
    boundary = f"=_m{key}"
    yield f'Content-Type: multipart/mixed;\r\n boundary="{boundary}"\r\n\r\n--{boundary}\r\n'.encode()
    yield from _bodies(parts, key)
    yield (
        f"--{boundary}\r\n"
        f"Content-Type: application/gzip;\r\n name={ATTACHMENT}\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment;\r\n filename={ATTACHMENT}\r\n\r\n"
    ).encode()
    for start in range(0, len(parts.attachment), _BASE64_BYTES):
        yield _base64(parts.attachment[start : start + _BASE64_BYTES])
    yield f"\r\n--{boundary}--\r\n".encode()


def _bodies(parts: Parts, key: str) -> Iterator[bytes]:
    if parts.html is None:
        yield from _body("plain", parts.text)
        return
    boundary = f"=_a{key}"
    start = f"--{boundary}\r\n".encode()
    yield f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'.encode()
    yield start
    yield from _body("plain", parts.text)
    yield start
    yield from _body("html", parts.html)
    yield f"--{boundary}--\r\n".encode()


def _body(subtype: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    yield head.encode()
    yield from pieces
    yield b"\r\n"


def _base64(data: bytes) -> bytes:
    lines = (data[start : start + _BASE64_LINE] for start in range(0, len(data), _BASE64_LINE))
    return b"".join(binascii.b2a_base64(line, newline=False) + b"\r\n" for line in lines)


def joined(pieces: Iterable[bytes], breathe: Callable[[], object]) -> Iterator[bytes]:
    """The pieces, many joined to one. Not all to one: a join of megabytes holds the interpreter for milliseconds."""
    some: list[bytes] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield b"".join(some)
            some, size = [], 0
            breathe()
    if some:
        yield b"".join(some)


def quoted_all(texts: Iterable[str], room: int, breathe: Callable[[], object]) -> tuple[list[bytes], int] | None:
    """Texts one behind the other as quoted-printable, and its bytes; None if that is more than the room there is."""
    pieces: list[bytes] = []
    size = 0
    rest = ""
    for text in _with_end(texts):
        # What is encoded piece by piece has a line break behind each: short texts are encoded together.
        rest = text if not rest else rest + (text or "")
        if len(rest) < _SLICE and text:
            continue
        for start in range(0, len(rest), _SLICE):
            pieces.append(quoted(printable(rest[start : start + _SLICE])))
            size += len(pieces[-1])
            breathe()
            if size > room:
                return None
        rest = ""
    return pieces, size


def _with_end(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        if text:
            yield text
    yield ""


def quoted(text: str) -> bytes:
    """Text as quoted-printable that the next piece can be put behind."""
    data = binascii.b2a_qp(text.encode("utf-8", "backslashreplace"), istext=True)
    if data and not data.endswith(b"\n"):
        data += b"=\n"
    return data.replace(b"\n", b"\r\n")

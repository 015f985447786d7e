"""A mail as it goes over the wire, and for whom. Pure; RFC 5321."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Envelope", "Mail"]


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it goes over the wire.

    Attributes:
        pieces: Each begins with a line, and what a line begins with is no single period; of a size to write at once.
        size: Bytes the mail has without the periods that were added.
    """

    pieces: Sequence[bytes]
    size: int

    @classmethod
    def of(cls, pieces: Sequence[bytes]) -> Mail:
        """Double the periods at the start of lines (RFC 5321, section 4.5.2).

        Args:
            pieces: The mail with CRLF line ends; each piece begins with a line.
        """
        stuffed = [piece.replace(b"\r\n.", b"\r\n..") for piece in pieces]
        stuffed = [b"." + piece if piece.startswith(b".") else piece for piece in stuffed]
        return cls(stuffed, sum(map(len, pieces)))


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail, and for whom it is.

    Attributes:
        key: Names it in all attempts.
        sender: Address.
        recipients: 1 or more addresses.
        mail: What they get.
    """

    key: str
    sender: str
    recipients: tuple[str, ...]
    mail: Mail

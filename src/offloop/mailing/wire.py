"""A mail as it goes over the wire, and for whom. Pure; RFC 5321."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Envelope", "Mail"]


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as it goes over the wire.

    Attributes:
        pieces: Each begins with a line, and what a line begins with is no single period; of a size to write at once.
        size: Bytes the mail has without the periods that were added.
        utf8: Whether a header has an address that is not ASCII: only a server with SMTPUTF8 takes it (RFC 6531).
    """

    pieces: Sequence[bytes]
    size: int
    utf8: bool = False

    @classmethod
    def of(cls, pieces: Sequence[bytes]) -> Mail:
        """Double the periods at the start of lines (RFC 5321, section 4.5.2).

        Args:
            pieces: The mail with CRLF line ends; each piece begins with a line.
        """
        stuffed = [piece.replace(b"\r\n.", b"\r\n..") for piece in pieces]
        stuffed = [b"." + piece if piece.startswith(b".") else piece for piece in stuffed]
        return cls(stuffed, sum(map(len, pieces)), not all(map(bytes.isascii, pieces)))

    def lines(self) -> Iterator[bytes]:
        """The pieces as a program on this machine reads them: no period doubled, each line ended by LF."""
        for piece in self.pieces:
            plain = piece[1:] if piece.startswith(b".") else piece
            yield plain.replace(b"\r\n..", b"\r\n.").replace(b"\r\n", b"\n")


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

    @property
    def utf8(self) -> bool:
        """Whether an address of it is not ASCII, in the mail or here."""
        return self.mail.utf8 or not all(map(str.isascii, (self.sender, *self.recipients)))

"""What stands in a mail's header: addresses, a subject, encoded words. Nothing that is logged can forge one.

Pure. RFC 5322 (addresses, folding), RFC 2047 (encoded words), RFC 6532 (addresses that are not ASCII).
"""

from __future__ import annotations

import binascii
import re
import string
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from offloop.errors import ConfigError

__all__ = ["DEFAULT_SUBJECT", "Mailbox", "Subject", "encoded", "one_line", "printable"]

DEFAULT_SUBJECT = "[{app}] {level}: {message}{more}"
"""Of a batch that is no digest."""

_MAX_SUBJECT = 200  # characters
_LINE = 66  # of a header, in characters
_WORD_BYTES = 39  # of UTF-8 in an encoded word: a line with one has at most 76 characters (RFC 2047, section 2)

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Za-z:.]+\])")
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")

# Controls, line and paragraph separators, and the marks that turn the direction of what follows: all of them can make a
# line look like what it is not. The first pattern leaves tab and newline, which a traceback has.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BLANK = re.compile("[\x00-\x20\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Somebody's address, and what a header shows of it.

    Attributes:
        address: As it stands in the envelope: ASCII, except perhaps for what is before the @.
        header: As it stands in a header, encoded; the address as it is.
    """

    address: str
    header: str

    @classmethod
    def parse(cls, owner: str, name: str, value: object) -> Mailbox:
        """Take `someone@example.org` or `Some One <someone@example.org>`, in any script.

        A domain becomes ASCII (IDNA). What stands before the @ can't: such a mail needs a server with SMTPUTF8.

        Raises:
            ConfigError: It is no such address, or a control character is in it.
        """
        text = value.strip() if isinstance(value, str) else ""
        named = _NAMED.fullmatch(text)
        shown, address = (named["name"].strip().strip('"'), named["address"]) if named else ("", text)
        address = unicodedata.normalize("NFC", _ascii_domain(address))  # RFC 6532, section 3.1
        if (
            not _ADDRESS.fullmatch(address)
            or not address.isprintable()
            or _UNSAFE.search(str(value))
            or "\n" in str(value)
        ):
            msg = f"{owner}{name}: expected an address like ops@example.org or Ops <ops@example.org>, got {value!r}"
            raise ConfigError(msg)
        return cls(address, f"{_phrase(shown)} <{address}>" if shown else address)

    @property
    def domain(self) -> str:
        """What stands behind the @."""
        return self.address.rpartition("@")[2]


class Subject:
    """A template for the subject line, checked when it is made."""

    FIELDS = (
        *("app", "host", "release", "level", "logger", "message", "what", "count", "kinds", "total", "state"),
        "more",
    )
    _NUMBERS = frozenset({"count", "kinds", "total"})

    def __init__(self, owner: str, template: str = DEFAULT_SUBJECT) -> None:
        """Check the template.

        Args:
            owner: What an error's message begins with.
            template: As for `str.format`, with the fields above and nothing else.

        Raises:
            ConfigError: It can't be filled in.
        """
        self.template = template
        try:
            for _, name, spec, conversion in string.Formatter().parse(template):
                if name is not None and (name not in self.FIELDS or conversion or "{" in (spec or "")):
                    raise ValueError(name)  # noqa: TRY301 - as format itself does with what it can't fill in
            template.format(**{name: 1 if name in self._NUMBERS else "" for name in self.FIELDS})
        except (ValueError, TypeError, AttributeError) as error:
            fields = ", ".join(f"{{{name}}}" for name in self.FIELDS)
            msg = f"{owner}subject: expected text with any of {fields}, got {template!r}"
            raise ConfigError(msg) from error

    def render(self, fields: Mapping[str, object]) -> str:
        """One printable line of at most 200 characters.

        Args:
            fields: A value for each of the fields above.
        """
        return one_line(self.template.format_map(fields), _MAX_SUBJECT)


def printable(text: str) -> str:
    r"""Text in which what could make a line look like what it is not is written out, as in `\x1b`."""
    return _UNSAFE.sub(_visible, text)


def one_line(text: str, limit: int = 100) -> str:
    """Text as one printable line of at most so many characters."""
    # Cut first: a message may have megabytes.
    text = printable(_BLANK.sub(" ", text[: limit * 4])).strip()
    return text if len(text) <= limit else text[: limit - 3] + "..."


def encoded(text: str) -> str:
    """Give a header's value: ASCII folded between words, anything else as encoded words."""
    if text.isascii() and "=?" not in text and max(map(len, text.split(" "))) < _LINE:
        return _folded(text)
    words: list[str] = []
    chunk = b""
    for character in text:
        data = character.encode()
        if len(chunk) + len(data) > _WORD_BYTES:
            words.append(_word(chunk))
            chunk = b""
        chunk += data
    return "\r\n ".join([*words, _word(chunk)])


def _word(chunk: bytes) -> str:
    return f"=?utf-8?b?{binascii.b2a_base64(chunk, newline=False).decode('ascii')}?="


def _folded(text: str) -> str:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= _LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)[1:]


def _phrase(name: str) -> str:
    if name.isascii() and "=?" not in name:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{quoted}"'
    return encoded(name)


def _ascii_domain(address: str) -> str:
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return address
    try:
        return f"{local}{at}{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        return address


def _visible(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")

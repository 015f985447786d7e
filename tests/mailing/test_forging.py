"""Nothing that is logged or configured adds a header to a digest mail, ends a part, or becomes markup."""

from __future__ import annotations

import gzip
import logging
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mails import KEY, KIND, NOON, bodies, digest, group, record
from mailservers import parsed
from offloop.digest import Cap, Gathered
from offloop.formatters.text import TextFormatter
from offloop.mailing.headers import printable
from offloop.mailing.redaction import Redactor
from offloop.mailing.templates import Templates

pytestmark = pytest.mark.once

HEADERS = [
    "From", "To", "Subject", "Date", "Message-ID", "In-Reply-To", "References", "Auto-Submitted",
    "X-Auto-Response-Suppress", "MIME-Version", "Content-Type",
]  # fmt: skip
OURS = {
    *("html", "head", "meta", "style", "body", "h1", "h2", "h3", "p", "br", "b", "ol", "li", "div", "span", "pre"),
    *("table", "tr", "td"),
}  # fmt: skip
LIVE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

NASTY = st.one_of(
    st.text(max_size=120),
    st.text(st.sampled_from("\r\n\x00\x1b\u202e\u2028\ud800\udfff<>&\"'=?_-. ab\u00e4\U0001f4a5"), max_size=60),
    st.sampled_from(
        [
            "x\r\nBcc: evil@example.org\r\n\r\nbody",
            "=?utf-8?q?=0D=0ABcc:_evil@example.org?=",
            f"\r\n--=_a{KEY}\r\nContent-Type: text/html\r\n\r\nforged",
            f"\n--=_m{KEY}--\n",
            "</pre></div></body><script>alert(1)</script><img src=x onerror=alert(1)>",
            "' onmouseover='x' style=\"",
            "<!-- ",
            "{mail.subject} {{ mail }} {% raw %}",
            ".\n.\r\n.\r\n",
            "=\n=3D\n",
        ]
    ),
)


class _Tags(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.other: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def handle_pi(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)


def failing(text: str, note: str, function: str) -> Any:
    """Give an exception as it is logged, with a note, raised in a function of an odd name."""
    name = text[:10].replace("\0", "").encode("utf-8", "ignore").decode()
    error = type(f"Odd{name}", (Exception,), {})(text)
    error.add_note(note)
    try:
        raise error
    except Exception as raised:
        trace = raised.__traceback__
        raised.__cause__ = ValueError(function)
        return type(raised), raised, trace


def check(raw: bytes, *, attached: bool | None = None) -> tuple[str, str]:
    """Check the frame of a mail, and give its text and HTML."""
    assert raw.isascii()
    lines = raw.split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    mail = parsed(raw)
    assert mail.keys() == HEADERS
    parts = [part for part in mail.walk() if not part.is_multipart()]
    types = [part.get_content_type() for part in parts]
    assert types in (["text/plain", "text/html"], ["text/plain", "text/html", "application/gzip"])
    if attached is not None:
        assert (len(types) == 3) is attached
    for part in mail.walk():
        assert not part.defects
    for part in parts[:2]:
        assert part.keys() == ["Content-Type", "Content-Transfer-Encoding"]
    if len(parts) == 3:
        assert parts[2].keys() == ["Content-Type", "Content-Transfer-Encoding", "Content-Disposition"]
        gzip.decompress(parts[2].get_content()).decode()
    plain, html = bodies(raw)
    assert not LIVE.search(plain + html + str(mail["Subject"]))
    return plain, html


def check_html(html: str) -> None:
    """Check that it is our markup and nothing else."""
    tags = _Tags()
    tags.feed(html)
    tags.close()
    assert tags.tags <= OURS
    assert tags.attributes <= {"lang", "charset", "name", "content", "style", "aria-label", "role"}
    assert not tags.other
    assert not tags.open


@settings(max_examples=120, deadline=None)
@given(texts=st.lists(NASTY, min_size=10, max_size=10), max_bytes=st.integers(8_000, 40_000))
@example(
    texts=["x\r\nBcc: evil@example.org", "\ud800", "\U00010000" * 100, "<b>", "\x00", "\n\n", "</pre>", "\r\nX: y",
           "\u202e", "\r\n"],
    max_bytes=8_000,
)  # fmt: skip
def test_nothing_logged_forges_anything(texts: list[str], max_bytes: int) -> None:
    """Whatever is logged, a digest has its headers, its parts, short ASCII lines, no live markup, and its size."""
    message, name, level, key, value, text, note, app, release, kind = texts
    extra: dict[str, Any] = {f"x{key}": value, "trace_id": text}
    odd = record(message, name=name, levelname=level, exc_info=failing(text, note, value), **extra)
    groups = (
        group(odd, record(value, name=name), kind=kind, more=5, preceding=(record(text, logging.INFO),)),
        group(record(text, name=value), kind=KIND, mails=1, total=7),
    )
    gathered = Gathered(groups=groups, cap=Cap(mails=1, per="hour", until=NOON), held_since=NOON, closing=True)
    configured = text.replace("{", "{{").replace("}", "}}")
    for subject in (None, "{level}{logger}{message}{what}{app}{release}{host}{more}", configured):
        raw = digest(
            gathered, max_bytes=max_bytes, subject=subject, app=app, release=release, host=name,
            formatter=TextFormatter(multiline=True),
        )  # fmt: skip
        assert len(raw) <= max_bytes
        _, html = check(raw)
        check_html(html)


PRINTABLE = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=300)


@settings(max_examples=60, deadline=None)
@given(message=PRINTABLE, text=PRINTABLE, value=PRINTABLE, before=PRINTABLE)
def test_what_was_logged_is_read_back(message: str, text: str, value: str, before: str) -> None:
    """Message, exception, extra values and what led there are in the text as they were logged."""
    odd = record(message, exc_info=failing(text, "a note", "cause"), given=value[:100])
    raw = digest(
        [group(odd, preceding=(record(before, logging.INFO),))], redact=Redactor("", ()), max_bytes=1_000_000,
    )  # fmt: skip
    plain, html = check(raw, attached=False)
    for shown in (message, text, value[:100], before):
        assert printable(shown) in plain
    check_html(html)


@settings(max_examples=40, deadline=None)
@given(message=st.text(st.sampled_from("a\r\n\x00\x1b\u202e\ud800\u2028 "), max_size=50))
def test_unsafe_characters_are_written_out(message: str) -> None:
    """What could make a line look like another one is in the text in a form that can be read."""
    plain, _ = check(digest([group(record(f"<{message}>"))], redact=Redactor("", ())))
    expected = printable(f"<{message}>".replace("\r\n", "\n")).replace("\n", "\n  ")
    assert expected in plain


@settings(max_examples=40, deadline=None)
@given(message=NASTY, name=NASTY)
def test_templates_forge_nothing_either(message: str, name: str) -> None:
    """What a user's template gives is one subject line, and text in the two parts, whatever was logged."""
    look = Templates(
        "",
        {
            "subject.txt": "{{ mail.app }}\r\n{{ mail.sections[0].what }}\n",
            "mail.txt": "{{ mail.sections[0].text }}\r\n--=_a" + KEY + "--\n",
            "mail.html": "<p title='{{ mail.sections[0].logger }}'>{{ mail.sections[0].text }}</p>",
        },
    )
    raw = digest([group(record(message, name=name))], look=look)
    _, html = check(raw)
    tags = _Tags()
    tags.feed(html)
    assert tags.tags == {"p"}
    assert tags.attributes == {"title"}

"""A mail says what the batch says, and nothing that was logged can forge a header, a part or a record."""

from __future__ import annotations

import gzip
import logging
import re
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mails import KEY, NOON, bodies, boxes, letter, record
from mailservers import parsed
from offloop.capture import Record
from offloop.mailing.headers import Subject
from offloop.mailing.listing import compose

HEADERS = [
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Auto-Submitted",
    "X-Auto-Response-Suppress",
    "MIME-Version",
    "Content-Type",
]


def build(
    *records: Record, max_bytes: int = 1_000_000, subject: str = "{level}: {message}{more}", **more: Any
) -> bytes:
    """Give a mail of the records."""
    formatter = more.pop("formatter", logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    pieces = compose(
        letter(**more),
        records,
        to=boxes(),
        subject=Subject("", subject),
        key=KEY,
        created=NOON,
        formatter=formatter,
        max_bytes=max_bytes,
    )
    assert all(piece.endswith(b"\r\n") for piece in pieces)
    return b"".join(pieces)


def test_headers_say_who_what_and_when() -> None:
    """A mail has each header once, with the batch's time and identity."""
    mail = parsed(build(record("disk full"), record("later", logging.INFO)))
    assert mail.keys() == HEADERS
    assert mail["From"] == '"App" <app@a.example>' or mail["From"] == "App <app@a.example>"
    assert mail["To"] == "ops@b.example"
    assert mail["Subject"] == "ERROR: disk full (and 1 more)"
    assert mail["Date"].datetime.timestamp() == NOON
    assert mail["Message-ID"] == f"<{KEY}@a.example>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert not mail.defects


def test_both_parts_hold_every_record() -> None:
    """Text and HTML show the same records, and a summary first."""
    plain, html = bodies(build(record("first <b>"), record("zweiter \u00fc\u20ac", logging.WARNING)))
    assert plain.splitlines()[0].startswith("2 records from shop 2.14 on web-1, 2025-11-22 12:00:00 UTC: ")
    assert plain.splitlines()[0].endswith("UTC: 1 ERROR, 1 WARNING")
    assert plain.splitlines()[2:4] == ["ERROR app: first <b>", "WARNING app: zweiter \u00fc\u20ac"]
    assert "ERROR app: first &lt;b&gt;" in html
    assert "WARNING app: zweiter \u00fc\u20ac" in html


def test_text_alone() -> None:
    """Without HTML the mail is one part of plain text."""
    mail = parsed(build(record("disk full"), html=False))
    assert mail.get_content_type() == "text/plain"
    assert "ERROR app: disk full" in mail.get_content()


def test_same_batch_gives_same_bytes() -> None:
    """Building is pure: a second attempt sends what the first sent."""
    records = [record("disk full"), record("a\nb")]
    assert build(*records) == build(*records)


def test_records_are_left_as_they_are() -> None:
    """A formatter that writes into its record writes into a copy."""
    it = record("disk full")
    build(it, formatter=logging.Formatter("%(asctime)s %(message)s"))
    assert "asctime" not in it.__dict__


def test_traceback_is_indented_below_its_record() -> None:
    """Only a record's first line begins at the margin, so that a line break makes no second record."""
    plain, html = bodies(build(record("bad\nERROR app: forged\r\nsecond", exc_text=None)))
    assert "ERROR app: bad\n  ERROR app: forged\n  second" in plain.replace("\r\n", "\n")
    assert html.count("<pre") == 1


def test_failing_formatter_does_not_lose_the_record() -> None:
    """Where the formatter fails, the mail has the message and says so."""
    plain, _ = bodies(build(record("disk full"), formatter=logging.Formatter("%(nothing)s")))
    assert "ERROR app: disk full [not formatted: ValueError]" in plain


def test_full_mail_says_what_is_missing() -> None:
    """What does not fit is left out from the end, with a count by level and the bytes."""
    records = [record(f"{number:04} " + "x" * 500) for number in range(200)]
    raw = build(*records, max_bytes=50_000)
    plain, html = bodies(raw)
    kept = re.findall(r"^ERROR app: (\d{4})", plain, re.MULTILINE)
    assert kept == [f"{number:04}" for number in range(len(kept))]
    left = 200 - len(kept)
    assert 10 < len(kept) < 200
    assert f"{left} records left out here, the mail is full: {left} ERROR; {left * 516:,} bytes" in plain.replace(
        "\n", " "
    )
    assert html.count("<pre") == len(kept)
    assert 40_000 < len(raw) <= 50_000


def test_large_record_leaves_room_for_others() -> None:
    """One record among several takes a quarter of the mail at most, and says how much of it is missing."""
    raw = build(record("first"), record("y" * 100_000), record("last"), max_bytes=50_000)
    plain, _ = bodies(raw)
    cut = re.search(r"\[([\d,]+) characters of this record left out here\]", plain)
    assert cut is not None
    assert int(cut[1].replace(",", "")) == 100_000 - plain.count("y")
    assert "ERROR app: last" in plain
    assert len(raw) <= 50_000


def test_large_record_alone_takes_the_mail() -> None:
    """A record that is alone is cut where the mail is full."""
    raw = build(record("y" * 100_000), max_bytes=50_000, html=False)
    assert 40_000 < len(raw) <= 50_000
    plain = parsed(raw).get_body(("plain",))
    assert plain is not None
    assert "characters of this record left out" in plain.get_content()


def test_mail_without_room_says_so() -> None:
    """A limit that leaves no room for any record gives a mail that says what it lacks."""
    plain, html = bodies(build(record("disk full"), max_bytes=100))
    assert "1 record left out here, the mail is full: 1 ERROR; 20 bytes" in plain
    assert "<pre" not in html


def test_long_subject_is_cut_and_folded() -> None:
    """A subject has at most 200 characters, in short lines, and is read back as it was."""
    raw = build(record("word " * 100), subject="{message} " + "z" * 10 + " {host}")
    mail = parsed(raw)
    assert len(mail["Subject"]) <= 200
    assert mail["Subject"].startswith("word word word")
    assert max(map(len, raw.split(b"\r\n"))) <= 78


NASTY = st.one_of(
    st.text(max_size=200),
    st.sampled_from(
        [
            "x\r\nBcc: evil@example.org",
            "=?utf-8?q?=0D=0ABcc:_evil@example.org?=",
            f"\r\n--=_{KEY}\r\nContent-Type: text/html\r\n\r\nforged",
            f"\n--=_{KEY}--\n",
            "</pre></body><script>alert(1)</script>",
            "\x1b[31m\x00\u2028\u202e\ud800",
            ".\n.\r\n.\r\n",
            "=\n=3D\n",
        ]
    ),
)


@settings(max_examples=100, deadline=None)
@given(message=NASTY, name=NASTY, level=NASTY, extra=NASTY, max_bytes=st.integers(5_000, 20_000))
@example(message="", name="", level="\U00010000" * 100, extra="", max_bytes=5_000)
@example(message="\x1b" * 200, name="\x1f" * 200, level="\x1f" * 30 + "\xa0" * 30, extra="", max_bytes=6_700)
@example(message="\U00010000" * 300, name="\U00010000" * 300, level="\U00010000" * 100, extra="", max_bytes=5_000)
@example(message="", name="", level="0" + "\U0001d4f6\U00018df6 " * 60, extra="", max_bytes=5_000)
def test_nothing_logged_forges_anything(message: str, name: str, level: str, extra: str, max_bytes: int) -> None:
    """Whatever is logged, the mail has its headers, its two parts, short ASCII lines, and no live markup."""
    raw = build(
        record(message, name=name, levelname=level),
        record(extra),
        max_bytes=max_bytes,
        subject="{level}{logger}{message}",
    )
    assert raw.isascii()
    assert len(raw) <= max_bytes
    lines = raw.split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    mail = parsed(raw)
    assert mail.keys() == HEADERS
    parts = [part.get_content_type() for part in mail.walk() if not part.is_multipart()]
    # What is cut goes with it as a file.
    assert parts in (["text/plain", "text/html"], ["text/plain", "text/html", "application/gzip"])
    plain, html = bodies(raw)
    assert "<script" not in html
    assert html.count("</body>") == 1
    assert not re.search(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", plain + html + mail["Subject"]
    )


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=1_500).map(str.strip))
def test_text_is_read_back_as_it_was(text: str) -> None:
    """A printable message comes through the encoding unchanged, in body and subject."""
    raw = build(record(text), html=False, subject="{message}")
    mail = parsed(raw)
    assert f"ERROR app: {text}\n" in mail.get_content().replace("\r\n", "\n")
    if len(text) <= 100:
        shown = " ".join(re.sub("[\x00-\x20]+", " ", text).split(" "))
        assert mail["Subject"] == shown or "\u200e" in text or "\u200f" in text


def test_cut_mail_has_a_file() -> None:
    """What does not fit is in a file that goes with the mail, without secrets."""
    raw = build(record("first"), record("y" * 100_000 + " password=hunter2"), record("last"), max_bytes=50_000)
    mail = parsed(raw)
    assert mail.get_content_type() == "multipart/mixed"
    (file,) = mail.iter_attachments()
    text = gzip.decompress(file.get_content()).decode()
    assert text.count("y") == 100_000
    assert text.endswith("y password=[redacted]\nERROR app: last\n")
    assert "goes with this mail as records.txt.gz" in bodies(raw)[0]


def test_listing_hides_secrets_and_names_the_application() -> None:
    """Subject and text are without secrets; the summary says what runs where."""
    raw = build(record("token=hunter2"), subject="[{app} {release}] {message} {what} {kinds} {total}{state}")
    plain, html = bodies(raw)
    assert parsed(raw)["Subject"] == "[shop 2.14] token=[redacted] ERROR app: token=[redacted] 1 1"
    assert plain.startswith("1 record from shop 2.14 on web-1, ")
    assert "hunter2" not in plain + html

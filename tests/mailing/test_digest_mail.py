"""What a digest mail says: subject, headers, sections, notes, and the file that goes with it when it is cut."""

from __future__ import annotations

import gzip
import json
import logging
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mails import KEY, KIND, NOON, bodies, caught, digest, failed, group, over, record, subject_of
from mailservers import parsed
from offloop.capture import Record
from offloop.digest import Cap, Gathered
from offloop.formatters.text import TextFormatter
from offloop.mailing.letter import joined
from offloop.mailing.report import Known

pytestmark = pytest.mark.once

KNOWN = {KIND: Known("KeyError in cart.py: 'sku-17'", "KeyError in cart.py", "ERROR", 40, "shop.cart")}


def file_of(raw: bytes) -> str:
    """Give the text of the file that goes with a mail; empty if there is none."""
    for part in parsed(raw).iter_attachments():
        assert part.get_filename() == "records.txt.gz"
        return gzip.decompress(part.get_content()).decode()
    return ""


def test_subject_of_one_record() -> None:
    """A new kind of one record is its level, logger and message."""
    assert subject_of(group(record("disk\nfull", name="shop.disk"))) == "[shop] ERROR shop.disk: disk"


def test_subject_of_an_exception() -> None:
    """An exception is its class, the application's file, and its text; how often follows."""
    assert subject_of(group(failed())) == "[shop] KeyError in mails.py: 'sku-17'"
    assert subject_of(group(failed(), more=411)) == "[shop] KeyError in mails.py: 'sku-17' (412 times)"
    assert subject_of(group(failed(), more=4, mails=2)) == "[shop] KeyError in mails.py: 'sku-17' (5 more)"
    assert subject_of(group(failed("no price", ValueError()))) == "[shop] ValueError in mails.py: no price"


def test_subject_of_several_kinds() -> None:
    """Several kinds are counted, with what the most severe one is; mixed levels are records."""
    kinds = [group(failed(), more=409), group(record(), kind="b"), group(record("x"), kind="c")]
    assert subject_of(*kinds) == "[shop] 3 kinds, 412 errors: KeyError in mails.py"
    warning = group(record("slow", logging.WARNING), kind="d")
    assert subject_of(kinds[0], warning) == "[shop] 2 kinds, 411 records: KeyError in mails.py"
    assert subject_of(warning, warning) == "[shop] 2 kinds, 2 warnings: WARNING app: slow"


def test_subject_of_what_is_over() -> None:
    """A kind that is over is called as the mails before called it."""
    gone = over(total=26_113, since=NOON - 600)
    assert subject_of(gone, known=KNOWN) == "[shop] over since 12:00: KeyError in cart.py, 26,113 in all"
    both = subject_of(gone, over(kind="b", total=1), known=KNOWN)
    assert both == "[shop] 2 kinds over: KeyError in cart.py, 26,114 in all"
    assert subject_of(over(total=7)) == "[shop] over since 12:00: over: none since the last mail, 7 in all"


def test_own_subject_has_more_fields() -> None:
    """A user's template is filled in from the digest."""
    template = "{app}|{host}|{release}|{level}|{logger}|{message}|{what}|{count}{more}|{kinds}|{total}|{state}"
    shown = subject_of(group(failed("bad"), more=4, mails=1, total=30), subject=template)
    assert shown == "shop|web-1|2.14|ERROR|app|bad|KeyError in mails.py: 'sku-17'|5 (and 4 more)|1|30|ongoing"


def test_kinds_form_threads() -> None:
    """Mails of a kind refer to one mail that never was, until the kind is over; a mail of many to some of them."""
    first = parsed(digest([group(record(), since=NOON)]))
    again = parsed(digest([group(record(), since=NOON, mails=3, last=NOON + 60)]))
    later = parsed(digest([group(record(), since=NOON + 90)]))
    assert first["References"] == first["In-Reply-To"] == again["References"]
    assert re.fullmatch(rf"<{KIND}\.[0-9a-f]+@a\.example>", first["References"])
    assert first["Message-ID"] == f"<{KEY}@a.example>"
    assert later["References"] != first["References"]
    many = parsed(digest([group(record(), kind=f"{number:016}") for number in range(50)]))
    assert len(many["References"].split()) == 10
    assert many["In-Reply-To"] == many["References"].split()[0]


def test_sections_say_how_often_and_since_when() -> None:
    """A kind is new, goes on or is over, with counts and times in UTC."""
    plain, html = bodies(digest([
        group(record("first"), more=399, last=NOON + 60, rate=(1, 3, 8), kind="a"),
        group(record("second"), more=5_199, mails=2, since=NOON - 60, total=26_113, kind="b"),
        group(record("third"), mails=2, since=NOON - 86_400, total=9, over=True, kind="c"),
        over(kind=KIND, total=7, since=NOON - 60),
    ], known=KNOWN))  # fmt: skip
    assert plain.startswith("5,601 errors of 4 kinds\nshop 2.14 on web-1\n2025-11-22 12:00:00 to 12:01:00 UTC\n")
    for said in (
        "1. ERROR app: first\nERROR, 400 times; new\n2025-11-22 12:00:00 to 12:01:00 UTC\n\u2581\u2583\u2588\n",
        "ERROR, 5,200 times; goes on: 5,200 more since 12:00:00, 26,113 in all since\n11:59:00\n",
        "over since 12:00:00: 9 in all since 2025-11-21 12:00:00, 1 of\nthem since the last mail",
        "4. KeyError in cart.py: 'sku-17'\n     over since 12:00:00: 7 in all since 11:59:00\n",
    ):
        assert said.replace("\n", " ") in plain.replace("\n", " ")
    assert "\u2581\u2583\u2588" in html
    assert max(len(line) for line in plain.splitlines()) <= 80


def test_notes_say_what_the_schedule_did() -> None:
    """The mail says that it is the last one for now, what was held back, and that the application stops."""
    cap = Cap(mails=30, per="hour", until=NOON + 3_600)
    groups = (group(record()),)
    plain, html = bodies(digest(Gathered(groups=groups, cap=cap, held_since=NOON - 60, closing=True)))
    for text in (plain.replace("\n  ", " "), html):
        assert "the last mail until 2025-11-22 13:00:00 UTC: 30 mails an hour is the limit." in text
        assert "held back what came since 2025-11-22 11:59:00 UTC" in text
        assert "The application is stopping" in text


def test_application_is_set_off_from_libraries() -> None:
    """Calls of the application are marked and have their source; those of libraries are in short."""
    raised = caught(lambda: json.loads("{"))
    plain, html = bodies(digest([group(record("no JSON", exc_info=raised))]))
    assert f"  > {__file__}:" in plain
    assert '  >     raised = caught(lambda: json.loads("{"))\n    json/__init__.py:' in plain
    assert "json.decoder.JSONDecodeError: Expecting property name" in plain
    assert "<b>raised = caught(lambda: json.loads(&quot;{&quot;))</b>" in html
    assert plain.count("ERROR app: no JSON") == 1


def test_chain_and_group_are_shown() -> None:
    """Causes come before what they caused, members after their group."""

    def fail() -> None:
        try:
            raise ValueError("inner")
        except ValueError as inner:
            error = ExceptionGroup("several", [KeyError("a"), OSError("b")])
            error.add_note("look here")
            raise error from inner

    raised = caught(fail)
    plain, _ = bodies(digest([group(record(exc_info=raised))]))
    parts = ["ValueError: inner", "direct cause", "ExceptionGroup: several", "look here", "1 of 2 in", "KeyError: 'a'",
             "2 of 2 in", "OSError: b"]  # fmt: skip
    places = [plain.index(part) for part in parts]
    assert places == sorted(places)


def test_syntax_error_says_where() -> None:
    """A syntax error's place is not in its frames, and shown all the same."""
    raised = caught(lambda: compile("a b", "conf.py", "exec"))
    plain, _ = bodies(digest([group(record(exc_info=raised))]))
    assert "(conf.py, line 1)" in plain


def test_context_says_where_it_comes_from() -> None:
    """Logger, place, host, release, process, thread, task, trace and extra values stand in the mail."""
    first = record("x", name="shop.cart", pathname="/srv/a.py", lineno=7, funcName="buy", taskName="t-1",
                   otelTraceID="4bf9", order={"id": 7}, password="hunter2",
                   **{f"x{n}": n for n in range(99)})  # fmt: skip
    plain, html = bodies(digest([group(first)]))
    for name, value in (
        ("logger", "shop.cart"), ("at", "/srv/a.py:7 in buy"), ("host", "web-1"), ("release", "2.14"),
        ("task", "t-1"), ("otelTraceID", "4bf9"), ("order", "{'id': 7}"), ("password", "[redacted]"),
    ):  # fmt: skip
        assert re.search(rf"^  {name}: +{re.escape(value)}$", plain, re.MULTILINE), name
    assert "hunter2" not in plain + html
    assert "x98" not in plain


def test_records_and_what_led_there() -> None:
    """Further records differ in what is shown of them; those before are under a heading of their own."""
    kind = group(
        failed("a"), failed("b", KeyError("other")), failed("c"), preceding=(record("POST /", logging.INFO, "http"),)
    )
    plain, _ = bodies(digest([kind]))
    assert "More of them:\n\n  ERROR app: b\n    KeyError: 'other'\n  ERROR app: c\n\n" in plain
    assert "What led there:\n\n  INFO http: POST /\n" in plain
    assert plain.count("Traceback") == 0


def test_loss_notice_is_told_as_it_is() -> None:
    """What offloop itself says is neither new nor goes on."""
    plain, _ = bodies(digest([group(record("7 records were lost at 12:00 UTC", logging.WARNING, "offloop.loss"))]))
    assert "7 records were lost at 12:00 UTC\nWARNING, once\n" in plain
    assert "logger:" not in plain


def test_whole_mail_has_no_file() -> None:
    """Where nothing is cut nothing is attached."""
    raw = digest([group(record())])
    assert parsed(raw).get_content_type() == "multipart/alternative"
    assert "records.txt.gz" not in bodies(raw)[0]


def test_cut_mail_has_a_file_with_all() -> None:
    """What is cut is in the file: each record with its traceback, and what led there, without secrets."""
    long = "x" * 50_000 + " password=hunter2 end"
    kind = group(failed(long), failed("second", ValueError("v")), preceding=(record("before", logging.INFO),))
    raw = digest([kind, group(record("other"), kind="b")])
    plain, _ = bodies(raw)
    assert "All that is held of these records goes with this mail as records.txt.gz" in plain
    assert "[Not shown here: 33,648 characters of the first record" in plain.replace("\n", " ")
    text = file_of(raw)
    assert "x" * 50_000 + " password=[redacted] end" in text
    assert "ValueError: v" in text
    assert "INFO app: before" in text
    assert "ERROR app: other" in text
    assert text.count("Traceback") == 2


def test_fifty_kinds_are_fifty_sections() -> None:
    """Fifty new kinds in a second are one mail with each of them."""
    kinds = [group(failed(f"number {n}"), kind=f"{n:016}") for n in range(50)]
    plain, html = bodies(digest(kinds))
    assert plain.startswith("50 errors of 50 kinds\n")
    assert html.count("<h2") == 50
    assert all(f"ERROR app: number {n}\n" in plain for n in range(50))


def test_kinds_without_room_are_counted() -> None:
    """What has no section is said in one line, and is in the file."""
    kinds = [group(record(f"{n} " + "\U0001f4a5" * 90), kind=f"{n:016}") for n in range(100)]
    raw = digest(kinds, max_bytes=16_384)
    plain, _ = bodies(raw)
    left = re.search(r"And (\d+) more kinds with (\d+) records, not shown here", plain)
    assert left is not None
    assert left[1] == left[2]
    assert "1. ERROR app: 0" in plain
    assert file_of(raw).count("\n== ") > 0


def test_text_alone() -> None:
    """Without HTML the mail is one part of plain text; with a file, two."""
    assert parsed(digest([group(record())], html=False)).get_content_type() == "text/plain"
    raw = digest([group(record("y" * 99_000))], html=False)
    assert [part.get_content_type() for part in parsed(raw).iter_parts()] == ["text/plain", "application/gzip"]


def test_same_digest_gives_same_bytes() -> None:
    """A second attempt sends what the first sent, file and all."""
    kinds = [group(failed("z" * 30_000)), group(record(), kind="b")]
    assert digest(kinds) == digest(kinds)


def test_failing_formatter_does_not_lose_the_record() -> None:
    """Where the formatter fails, the mail has the message and says so."""
    plain, _ = bodies(digest([group(record("disk full"))], formatter=logging.Formatter("%(nothing)s")))
    assert "ERROR app: disk full [not formatted: ValueError]" in plain


def test_formatter_may_write_into_its_record() -> None:
    """It is given a copy, whose traceback is shown by the mail."""
    first = failed()
    digest([group(first)], formatter=logging.Formatter("%(asctime)s %(message)s"))
    assert "asctime" not in first.__dict__
    assert first.exception is not None


def test_odd_records_are_told_all_the_same() -> None:
    """A time that is none, a level without a name, values without an order."""
    odd = record("x", levelname="", levelno=35, odd=float("nan"), created=1e30, process=None, processName=None)
    plain, _ = bodies(digest([group(odd, counts={35: 1, 40: 2})]))
    assert "2 ERROR, 1 Level 35" in plain


# Texts short and long, that can and can't be compressed; as what `text_of` makes them of, which is short.
Recipe = str | tuple[str, int] | int
RECIPES: st.SearchStrategy[Recipe] = st.one_of(
    st.text(max_size=50),
    st.tuples(st.text(min_size=1, max_size=9), st.integers(1, 3_000)),
    st.integers(0, 9),
)


def text_of(recipe: Recipe) -> str:
    """Give the text."""
    match recipe:
        case str():
            return recipe
        case int():
            return "".join(map(chr, Random(recipe).choices(range(33, 0x2FFF), k=2_000)))
        case unit, times:
            return unit * times


@pytest.mark.once
@settings(max_examples=100, deadline=None)
@given(
    kinds=st.lists(st.lists(RECIPES, min_size=1, max_size=4), min_size=1, max_size=12),
    max_bytes=st.integers(4_096, 120_000),
    html=st.booleans(),
    app=st.sampled_from(["shop", "\U0001f4a5" * 60]),
)
def test_no_mail_exceeds_its_size(kinds: list[list[Recipe]], max_bytes: int, html: bool, app: str) -> None:
    """Whatever there is to tell, the whole mail stays within its limit, and can be read."""
    groups = [
        group(
            *(failed(text_of(recipe)) for recipe in recipes),
            kind=f"{number:016}",
            preceding=(record(text_of(recipes[0])),),
        )
        for number, recipes in enumerate(kinds)
    ]
    raw = digest(groups, max_bytes=max_bytes, html=html, app=app, formatter=TextFormatter(multiline=True))
    assert len(raw) <= max_bytes
    mail = parsed(raw)
    assert not mail.defects
    file_of(raw)


def test_pieces_are_never_empty() -> None:
    """Nor is the last one, where the last part of a mail makes up a whole piece."""
    parts = [b"x" * 65_534 + b"\r\n"]
    assert list(joined(parts * 3, bool)) == parts * 3
    assert list(joined([*parts, b"\r\n", b"\r\n"], bool)) == [*parts, b"\r\n\r\n"]


def test_work_is_done_in_pieces() -> None:
    """A mail of a megabyte is built with many pauses between."""
    calls: list[int] = []
    digest([group(record("x" * 1_000_000))], breathe=lambda: calls.append(1))
    assert len(calls) > 100


def test_records_are_shared_and_left_alone() -> None:
    """Building changes no record that another sink may have."""
    first = failed()
    before = dict(first.__dict__)
    digest([group(first)])
    assert isinstance(first, Record)
    assert dict(first.__dict__) == before


def test_first_kinds_are_shown_in_more_detail() -> None:
    """Where not all has room, the ten most severe kinds have more of it than the others."""
    kinds = [group(failed(f"number {n}", release_notes="x" * 150), kind=f"{n:016}") for n in range(60)]
    _, html = bodies(digest(kinds))
    sections = html.split("<h2")[1:]
    assert len(sections) == 60
    assert all("release_notes" in section for section in sections[:10])
    assert not any("release_notes" in section for section in sections[10:])
    assert all("raise error if" in section for section in sections)

"""Secrets are hidden by pattern, wherever they stand, and no text costs more than its length."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offloop.errors import ConfigError
from offloop.mailing.redaction import DEFAULT_PATTERNS, HIDDEN, Redactor

pytestmark = pytest.mark.once

REDACT = Redactor("", DEFAULT_PATTERNS)
AWS = "AKIA" + "ABCDEFGHIJKLMNOP"
SLACK = "xoxb" + "-123456789012-abcdef"
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("password=hunter2 user=ann", "password=[redacted] user=ann"),
        ("DB_PASSWORD: 'a b' x", "DB_PASSWORD: '[redacted]' x"),
        ('{"api_key": "ab\\"cd", "id": 1}', '{"api_key": "[redacted]", "id": 1}'),
        ('"{\\"client_secret\\": \\"abc\\"}"', '"{\\"client_secret\\": \\"[redacted]\\"}"'),
        ("{'accessToken': b'abc'}", "{'accessToken': b'[redacted]'}"),
        ("https://h/x?token=abc&page=2", "https://h/x?token=[redacted]&page=2"),
        ("mysql --user ann --password hunter2 db", "mysql --user ann --password [redacted] db"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
        ("{'authorization': 'Basic dXNlcjpw'}", "{'authorization': 'Basic [redacted]'}"),
        ("sent Bearer abcdefghijkl1234", "sent Bearer [redacted]"),
        ("postgresql://ann:s3cret@db/x", "postgresql://ann:[redacted]@db/x"),
        (f"key {AWS}.", "key [redacted]."),
        ("ghp_" + "a1" * 18, HIDDEN),
        (SLACK, HIDDEN),
        ("jwt eyJhbGciOi.eyJzdWIi.SflKx-_ end", "jwt [redacted] end"),
        (f"{KEY}\nProc-Type: 4,ENCRYPTED\nMIIE==\n-----END", "-----BEGIN RSA PRIVATE KEY-----[redacted]-----END"),
        ("card 4111 1111 1111 1111, 5500-0000-0000-0004", "card [redacted], [redacted]"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    """What tells that it is a secret is hidden, and what tells what it was stays."""
    assert REDACT(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "tokens=1500, max_tokens: 5",
        "KeyError: 'token'",
        "tokenizer: fast",
        "4111 1111 1111 1112",
        "at 1732341234567890123 ns",
        "trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "see https://example.org/a:b/c@d",
        "no password given",
        "a basic thing",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Numbers, identities and words that only look like it are left alone."""
    assert REDACT(text) == text


@settings(max_examples=60, deadline=None)
@given(before=st.integers(0, 9_000), length=st.integers(1, 6_000), quote=st.sampled_from(['"', "'", ""]))
def test_place_and_length_do_not_matter(before: int, length: int, quote: str) -> None:
    """A secret is hidden wherever it lies with respect to windows, and however long it is."""
    text = f"{'x ' * before}password={quote}{'s' * length}{quote} end"
    assert REDACT(text) == f"{'x ' * before}password={quote}{HIDDEN}{quote} end"


def test_long_private_key_is_hidden_whole() -> None:
    """A key is hidden up to its end, beyond the window in which it begins."""
    secret = "MIIEabcd/+\n" * 2_000
    text = f"{'y' * 3_000}\n{KEY}\n{secret}-----END RSA PRIVATE KEY-----\nafter"
    assert REDACT(text) == f"{'y' * 3_000}\n{KEY}{HIDDEN}-----END RSA PRIVATE KEY-----\nafter"


class _Counting:
    """Counts what a pattern is given to look at."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    "piece",
    ['password="', "token", "eyJ", "-eyJ", "4 ", "4", f"{KEY}", "://a:", "secret \\", "bearer ", "authorization:"],
)
def test_work_grows_with_the_text_alone(piece: str) -> None:
    """Whatever the text, each pattern sees each window once, with a pause after it."""
    text = piece * (200_000 // len(piece))
    breaths = _Counting()
    REDACT(text, breaths)
    windows = len(text) // (4096 - 512) + 1
    assert breaths.calls <= windows * len(DEFAULT_PATTERNS)


def test_patterns_can_be_added_and_left_out() -> None:
    """`redact` takes further patterns, compiled ones too; `()` hides nothing."""
    redact = Redactor("", (*DEFAULT_PATTERNS, r"customer (?P<secret>\d+)", re.compile("N[0-9]{3}")))
    assert redact("customer 4711 N123 pwd=x") == "customer [redacted] [redacted] pwd=[redacted]"
    assert Redactor("", ())("password=x") == "password=x"


def test_named_values_are_hidden_whole() -> None:
    """A value whose name is that of a secret is hidden with its spaces."""
    assert REDACT.pair("db_password", "a b c") == HIDDEN
    assert REDACT.pair("note", "password=a b") == "password=[redacted] b"


@pytest.mark.parametrize("patterns", ["abc", b"abc", None, 5, re.compile("x"), ["("], [5], [re.compile(b"x")], ["x*"]])
def test_patterns_are_checked(patterns: object) -> None:
    """What is no list of regular expressions, or would hide everything, is refused."""
    with pytest.raises(ConfigError, match="SMTPSink: redact: "):
        Redactor("SMTPSink: ", patterns)

"""What a header is made of is checked when it is configured."""

from __future__ import annotations

import pytest

from offloop.errors import ConfigError
from offloop.mailing.headers import Mailbox, Subject


@pytest.mark.parametrize(
    "template",
    ["{nope}", "{message.x}", "{message[0]}", "{message!r}", "{0}", "{}", "{", "{count:{host}}", "{message:d}"],
)
def test_subject_template_is_checked(template: str) -> None:
    """A template that can't be filled in, or that reaches into objects, is refused at once."""
    with pytest.raises(ConfigError, match=r"SMTPSink: subject: expected text with any of \{app\}"):
        Subject("SMTPSink: ", template)


def test_subject_takes_all_fields() -> None:
    """A template is filled in with what it is given, as one line."""
    subject = Subject("", "{host} {level} {logger} {message:.4} {count:03}{more} {kinds:,}")
    fields = dict.fromkeys(Subject.FIELDS, "x") | {"message": "critical", "count": 3, "kinds": 1_000, "more": "\r\n"}
    assert subject.render(fields) == "x x x crit 003 1,000"


@pytest.mark.parametrize(
    ("value", "address", "header"),
    [
        ("ops@b.example", "ops@b.example", "ops@b.example"),
        (" root@localhost ", "root@localhost", "root@localhost"),
        ("Ops Team <ops+x@b.example>", "ops+x@b.example", '"Ops Team" <ops+x@b.example>'),
        ('"O\\ps, T." <ops@b.example>', "ops@b.example", '"O\\\\ps, T." <ops@b.example>'),
        ("<ops@b.example>", "ops@b.example", "ops@b.example"),
        ("\u00dcni <u@\u00fc.example>", "u@xn--tda.example", "=?utf-8?b?w5xuaQ==?= <u@xn--tda.example>"),
        ("=?utf-8?q?x?= <a@b.example>", "a@b.example", "=?utf-8?b?PT91dGYtOD9xP3g/PQ==?= <a@b.example>"),
        ("a@[127.0.0.1]", "a@[127.0.0.1]", "a@[127.0.0.1]"),
    ],
)
def test_mailbox_parses(value: str, address: str, header: str) -> None:
    """An address may have a name, which is encoded where it must be."""
    assert Mailbox.parse("", "to", value) == Mailbox(address, header)


def test_mailbox_in_any_script() -> None:
    """What stands before the @ may be in any script, and stays as it is; what it is called is encoded all the same."""
    mailbox = Mailbox.parse("SMTPSink: ", "to", "J\u00fcrgen <ju\u0308rgen@b\u00fccher.example>")
    assert mailbox.address == "j\u00fcrgen@xn--bcher-kva.example"
    assert mailbox.header == "=?utf-8?b?SsO8cmdlbg==?= <j\u00fcrgen@xn--bcher-kva.example>"


@pytest.mark.parametrize(
    "value",
    ["", "ops", "@b.example", "ops@", "a b@c.example", "a@b.example\r\nBcc: x@y.example", "A\nB <a@b.example>",
     "a@b.example, c@d.example", "<a@b.example", "\u00fc\u00a0x@b.example", "a@\u00fc..example", "a..b@c.example",
     None, 5, "a@b.example>", "x\x00 <a@b.example>", "a@-b.example"],
)  # fmt: skip
def test_mailbox_refuses(value: object) -> None:
    """What is no plain address is refused with the value in the message."""
    with pytest.raises(ConfigError, match=r"SMTPSink: to: expected an address like ops@example\.org"):
        Mailbox.parse("SMTPSink: ", "to", value)

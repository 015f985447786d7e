"""Each recipient gets what is theirs, those who get the same share a mail, and what nobody asked for is for all."""

from __future__ import annotations

import logging

import pytest

from mails import KIND, group, over, record
from offloop.digest import Group
from offloop.errors import ConfigError
from offloop.mailing.report import Known
from offloop.mailing.routes import Recipient, Recipients

ALL = "ops@x.example"
BOSS = Recipient("boss@x.example", level="CRITICAL")
CART = Recipient("cart@x.example", logger="shop.cart")


def routed(recipients: Recipients, *groups: Group, known: dict[str, Known] | None = None) -> dict[str, tuple[int, ...]]:
    """Give who gets which kinds."""
    routes = recipients.of_groups(groups, known or {})
    return {", ".join(box.address for box in route.to): route.indices for route in routes}


def test_kinds_go_to_those_who_want_them() -> None:
    """Level and logger tree decide; those who get the same share one mail."""
    recipients = Recipients("", [ALL, BOSS, CART, Recipient("all@x.example", level=10)])
    kinds = (
        group(record(name="shop.cart.price")),
        group(record(level=logging.CRITICAL, name="shop.cartel")),
        group(record(name="db")),
    )
    assert routed(recipients, *kinds) == {
        "ops@x.example, all@x.example": (0, 1, 2), "boss@x.example": (1,), "cart@x.example": (0,),
    }  # fmt: skip


def test_a_kind_goes_as_a_whole() -> None:
    """One record that is theirs is enough; so is one held as a number alone."""
    recipients = Recipients("", [BOSS, CART])
    mixed = group(record(name="db"), record(name="shop.cart"))
    counted = group(record(name="db"), counts={40: 1, 50: 1}, kind="b")
    assert routed(recipients, mixed, counted) == {"boss@x.example": (1,), "cart@x.example": (0,)}


def test_closing_notice_goes_to_those_who_were_told() -> None:
    """That a kind is over is told to those who got its mails, or to all if that is not known."""
    recipients = Recipients("", [BOSS, CART])
    known = {KIND: Known("x", "x", "ERROR", 40, "shop.cart")}
    assert routed(recipients, over(), known=known) == {"cart@x.example": (0,)}
    assert routed(recipients, over()) == {"boss@x.example, cart@x.example": (0,)}


def test_loss_notice_is_for_those_without_a_logger() -> None:
    """It goes to whom its level interests; where there is nobody, to all."""
    notice = group(record("lost", logging.WARNING, "offloop.loss"))
    assert routed(Recipients("", [ALL, BOSS, CART]), notice) == {ALL: (0,)}
    assert routed(Recipients("", [BOSS, CART]), notice) == {"boss@x.example, cart@x.example": (0,)}


def test_records_are_routed_one_by_one() -> None:
    """Without a digest each record goes to those who want it."""
    recipients = Recipients("", [ALL, CART])
    routes = recipients.of_records([record(name="shop.cart"), record(name="db")])
    assert [route.indices for route in routes] == [(0, 1), (0,)]


def test_what_nobody_wants_is_known() -> None:
    """A sink can tell what to turn away."""
    recipients = Recipients("", [BOSS, CART])
    assert recipients.choosy
    assert not Recipients("", [ALL, BOSS]).choosy
    assert recipients.want(record(name="shop.cart"))
    assert not recipients.want(record(name="shop.carts"))


@pytest.mark.parametrize("level", ["LOUD", 1.5, True, None])
def test_recipient_level_is_checked(level: object) -> None:
    """A level is a name or a number."""
    with pytest.raises(ConfigError, match=r"Recipient\.level must be a level's name or number"):
        Recipient("a@b.example", level=level)  # type: ignore[arg-type]


def test_recipient_is_checked() -> None:
    """An address is one, a logger a name."""
    with pytest.raises(ConfigError, match=r"Recipient\.address: expected an address"):
        Recipient("nobody")
    with pytest.raises(ConfigError, match=r"Recipient\.logger must be a logger's name"):
        Recipient("a@b.example", logger=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("to", "said"), [([], "at least 1 address"), (5, "or a list of them"), (b"a@b", "or a list"),
                                          (["x"], "expected an address"), ([5], "expected an address")])  # fmt: skip
def test_recipients_are_checked(to: object, said: str) -> None:
    """There is one, and each is an address."""
    with pytest.raises(ConfigError, match=f"SMTPSink: to:? .*{said}"):
        Recipients("SMTPSink: ", to)

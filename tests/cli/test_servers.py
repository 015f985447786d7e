from __future__ import annotations

import smtplib
import socket
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any

import pytest

from offloop.cli._child import DemoError, child
from offloop.cli._mail import text_of_mail
from offloop.cli._servers import HOST, Tally


def test_a_mail_with_several_records_is_one_message() -> None:
    """Records of a mail count once each, however often the mail names them."""
    tally = Tally()
    tally.add("offloop#1 failed\noffloop#2 failed, as offloop#1 did")

    assert tally.counts()["rounds"] == {"offloop": {"messages": 1, "records": 2, "duplicates": 0}}


def test_a_message_without_a_record_is_damaged() -> None:
    """What names no record is counted apart."""
    tally = Tally()
    tally.add("hello")

    assert tally.counts() == {"open": 0, "damaged": 1, "rounds": {}}


def test_text_part_is_what_counts() -> None:
    """The plain text of a mail with several parts is found; a mail without one has none."""
    mail = EmailMessage()
    mail.set_content("offloop#1 failed")
    mail.add_alternative("<p>offloop#1 failed</p>", subtype="html")

    assert text_of_mail(mail.as_bytes()).strip() == "offloop#1 failed"
    assert text_of_mail(b"Content-Type: image/png\n\nnone") == ""


async def test_mail_server_counts_what_it_takes() -> None:
    """A mail is taken after the delay, counted, and the connection is no longer open when it has ended."""
    async with child("the mail server", "offloop.cli._mail", "0", "0.01") as server:
        port = (await server.read(20))["port"]
        with smtplib.SMTP(HOST, port, local_hostname="localhost") as client:
            assert (await server.ask(20))["open"] == 1
            client.sendmail("a@example.org", ["b@example.org"], b"Subject: x\r\n\r\nstandard#3 failed\r\n")
        while (counts := await server.ask(20))["open"]:
            pass

    assert counts["rounds"] == {"standard": {"messages": 1, "records": 1, "duplicates": 0}}


async def test_collector_counts_what_it_reads(line: Callable[[Any], bytes]) -> None:
    """The collector answers with what it has read once the connection has ended."""
    async with child("the collector", "offloop.cli._collector", "0") as server:
        port = (await server.read(20))["port"]
        with socket.create_connection((HOST, port)) as client:
            client.sendall(line({"message": "offloop#1"}))
        while not (counts := await server.ask(20))["rounds"]:
            pass

    assert counts["rounds"]["offloop"]["records"] == 1


async def test_server_ends_with_its_stdin() -> None:
    """When the parent lets go, nobody listens any more."""
    async with child("the collector", "offloop.cli._collector", "0") as server:
        port = (await server.read(20))["port"]

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))


async def test_taken_port_is_named() -> None:
    """A server that can't have its port says which, and why."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        async with child("the collector", "offloop.cli._collector", str(port)) as server:
            with pytest.raises(DemoError, match=f"the collector can't listen on 127.0.0.1:{port}: .*in use"):
                await server.read(20)

"""`offloop mail preview`: a file's records as a digest."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from helpers import record_of
from mailservers import DROP, aiosmtpd, certificates, parsed
from offloop.cli.app import app
from offloop.formatters.json import JSONFormatter
from servers import free_port


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two kinds of errors, one of them 30 times, and what led there."""
    encode = JSONFormatter().encode
    records = [record_of("reading the feed", name="shop.feed")]
    records += [record_of(f"order {n} failed, token=abcdefgh{n}", level=logging.ERROR, name="shop") for n in range(30)]
    records.append(record_of("the till is on fire", level=logging.CRITICAL, name="shop.till"))
    path = tmp_path / "app.jsonl"
    path.write_bytes(b"\n".join(map(encode, records)))
    return path


def run(*arguments: Any, **options: Any) -> Any:
    return CliRunner().invoke(app, ["mail", "preview", *map(str, arguments)], **options)


def test_text_is_printed(file: Path) -> None:
    """Subject and text, the gravest kind first, counted, without secrets."""
    result = run(file, "--app", "shop")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Subject: [shop] 2 kinds, 31 errors: ")
    assert "30 times" in result.stdout
    assert "10 more were counted, and not kept." in result.stdout
    assert result.stdout.index("the till is on fire") < result.stdout.index("order 0 failed")
    assert "reading the feed" in result.stdout
    assert "abcdefgh0" not in result.stdout
    assert "abcdefgh0" in run(file, "--show-secrets").stdout


def test_parts_are_written(file: Path, tmp_path: Path) -> None:
    """Each into its file; nothing is printed."""
    html, text, mail = (tmp_path / name for name in ("mail.html", "mail.txt", "mail.eml"))
    result = run(file, "--html", html, "--text", text, "--mail", mail, "--subject", "{count} of {kinds}")
    assert (result.exit_code, result.output) == (0, "")
    written: Any = message_from_bytes(mail.read_bytes(), policy=policy.default)
    assert written["Subject"] == "31 of 2"
    assert written.get_body(("html",)).get_content() == html.read_text()
    assert written.get_body(("plain",)).get_content() == text.read_text()


def test_template_is_tried(file: Path, tmp_path: Path) -> None:
    """One of a directory, with the file's records."""
    (tmp_path / "mail.txt").write_text("{{ mail.count }} in all\n")
    result = run(file, "--templates", tmp_path)
    assert "31 in all" in result.stdout


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        ("", [], "no records"),
        ("{}", [], "line 1: not a record as JSON: it has no message"),
        (json.dumps({"message": "fine", "level": "INFO"}), [], r"none of the 1 records is of the level"),
        (json.dumps({"message": "fine"}), ["--level", "LOUD"], "LOUD"),
        (json.dumps({"message": "fine"}), ["--subject", "{nothing}"], "nothing"),
    ],
)
def test_what_is_wrong_is_one_line(content: str, more: list[str], said: str, tmp_path: Path) -> None:
    """On stderr, with exit code 2."""
    path = tmp_path / "app.jsonl"
    path.write_text(content)
    result = run(path, *more)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.startswith("offloop mail preview: ")
    assert result.stderr.count("\n") == 1


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """As the system says it."""
    result = run(tmp_path / "missing.jsonl")
    assert result.exit_code == 2
    assert "missing.jsonl" in result.stderr


def test_stdin_is_read(file: Path) -> None:
    """From a pipe, by the command as it is installed."""
    command = [sys.executable, "-m", "offloop.cli", "mail", "preview", "-"]
    result = subprocess.run(command, input=file.read_bytes(), capture_output=True, check=True)
    assert b"31 errors" in result.stdout


def send(port: int, *more: str, env: dict[str, str] | None = None) -> Any:
    arguments = ["mail", "test", "127.0.0.1", str(port), "--from", "app@a.example", "--to", "ops@b.example", *more]
    return CliRunner().invoke(app, arguments, env=env)


def test_each_step_is_told(tmp_path: Path) -> None:
    """What the server said to each, with the terms of TLS; the password nowhere."""
    made = certificates("127.0.0.1")
    authority = tmp_path / "ca.pem"
    authority.write_text(made.authority)
    with aiosmtpd(tls_context=made.server, login=("app-user", "s3cret-pass")) as desk:
        options = ["--tls", "starttls", "--ca", str(authority), "--username", "app-user"]
        result = send(desk.port, *options, env={"MAIL_PASSWORD": "s3cret-pass"})
    assert result.exit_code == 0, result.output
    steps = [line.split()[0] for line in result.stdout.splitlines()]
    assert steps == [
        "connect",
        "greeting",
        "EHLO",
        "STARTTLS",
        "TLS",
        "EHLO",
        "AUTH",
        "MAIL",
        "RCPT",
        "DATA",
        "mail",
        "Message-ID",
    ]
    assert "TLSv1." in result.stdout
    assert "certificate of 127.0.0.1 by trustme" in result.stdout
    assert "s3cret-pass" not in result.output
    (mail,) = map(parsed, desk.mails)
    assert mail["Message-ID"] in result.stdout


@pytest.mark.parametrize(
    ("command", "reply", "said"),
    [
        ("RCPT", "550 no such user", "The server refuses this mail for good"),
        ("RCPT", "450 greylisted", "puts it off"),
        ("MAIL", "530 log in first", "The server wants no mail from us"),
        ("DATA", DROP, "The server can't be reached, or broke off"),
    ],
)
def test_refusal_is_explained(command: str, reply: str, said: str) -> None:
    """What the server said, and what a person may do about it; exit code 1."""
    with aiosmtpd() as desk:
        desk.answer(command, reply)
        result = send(desk.port)
    assert result.exit_code == 1
    assert reply == DROP or reply in result.stderr
    assert said in result.stderr


def test_tls_is_explained() -> None:
    """No offer, and a certificate that nobody vouches for."""
    made = certificates("127.0.0.1")
    with aiosmtpd() as desk:
        assert "Try --tls implicit" in send(desk.port, "--tls", "starttls").stderr
    with aiosmtpd(tls_context=made.server) as desk:
        assert "Its certificate is not accepted" in send(desk.port, "--tls", "starttls").stderr


def test_password_is_not_asked_of_the_command_line() -> None:
    """The variable that is missing is named."""
    result = send(1, "--username", "app-user", "--password-variable", "NOT_THERE")
    assert (result.exit_code, "NOT_THERE" in result.stderr) == (2, True)


def test_server_that_is_not_there_is_named() -> None:
    """With the port, and exit code 1."""
    port = free_port()
    result = send(port)
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr

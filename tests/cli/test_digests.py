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
from offloop.cli.app import app
from offloop.formatters.json import JSONFormatter


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

"""A user's own templates are parsed when they are given, run in a sandbox, and lose nothing when they fail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mails import KEY, NOON, bodies, boxes, digest, failed, group, letter, record, subject_of
from mailservers import parsed
from offloop.digest import Gathered
from offloop.errors import ConfigError, MissingExtra
from offloop.formatters.text import TextFormatter
from offloop.mailing.composing import composed
from offloop.mailing.templates import Templates

pytestmark = pytest.mark.once

TEXT = "{% for kind in mail.sections %}{{ kind.what }} x{{ kind.count }}\n{% endfor %}"


def test_directory_of_templates(tmp_path: Path) -> None:
    """Files of these names are used; what they extend lies beside them."""
    (tmp_path / "base.html").write_text("<html><body>{% block main %}{% endblock %}</body></html>")
    (tmp_path / "mail.html").write_text(
        '{% extends "base.html" %}{% block main %}<b>{{ mail.heading }}</b>{% endblock %}'
    )
    (tmp_path / "mail.txt").write_text(TEXT)
    (tmp_path / "notes.md").write_text("{% not looked at")
    plain, html = bodies(digest([group(failed(), more=1)], look=Templates("", tmp_path)))
    assert plain == "KeyError in mails.py: 'sku-17' x2\n"
    assert html == "<html><body><b>2 errors</b></body></html>"


def test_values_are_escaped_in_html_alone() -> None:
    """HTML gets no markup of what was logged; text gets it as it is."""
    look = Templates("", {"mail.html": "<p>{{ mail.sections[0].text }}</p>", "mail.txt": "{{ mail.sections[0].text }}"})
    plain, html = bodies(digest([group(record("<b>&"))], look=look))
    assert plain == "ERROR app: <b>&"
    assert html == "<p>ERROR app: &lt;b&gt;&amp;</p>"


def test_part_without_a_template_is_ours() -> None:
    """Only what is given is replaced."""
    plain, html = bodies(digest([group(record())], look=Templates("", {"mail.txt": "short"})))
    assert plain == "short"
    assert "<h1" in html


def test_subject_template_is_one_line() -> None:
    """A subject is one printable line, whatever the template gives."""
    look = Templates("", {"subject.txt": "\n{{ mail.app }}:\r\nBcc: x@y.example {{ mail.sections[0].short }}\n"})
    assert subject_of(group(failed()), look=look) == "shop: Bcc: x@y.example KeyError in mails.py"


@pytest.mark.parametrize(
    ("name", "template", "said"),
    [
        ("mail.html", "{{ mail.nothing }}", "UndefinedError"),
        ("mail.txt", "{{ 1 / 0 }}", "ZeroDivisionError"),
        ("subject.txt", "{{ mail.sections[7].what }}", "UndefinedError"),
        ("mail.html", "{{ mail.__class__.__mro__ }}", "SecurityError"),
        ("mail.txt", "{% for a in range(99999) %}{{ 'x' * 99 }}{% endfor %}", "ValueError"),
        ("mail.html", "{% include 'nothing.html' %}", "TemplateNotFound"),
    ],
)
def test_failing_template_loses_nothing(name: str, template: str, said: str) -> None:
    """The mail has the built-in form, and says so; so does a line of diagnostics."""
    pieces, troubles = composed(
        Gathered(groups=(group(record("disk full")),)), letter(), to=boxes(), key=KEY, created=NOON,
        formatter=TextFormatter(), max_bytes=100_000, known={}, look=Templates("", {name: template}),
    )  # fmt: skip
    plain, html = bodies(b"".join(pieces))
    assert len(troubles) == 1
    assert troubles[0].startswith(f"the template {name} failed ({said}")
    for text in (plain, html):
        assert "disk full" in text
        assert f"The template {name} failed" in text
    assert parsed(b"".join(pieces))["Subject"] == "[shop] ERROR app: disk full"


@pytest.mark.parametrize("names", [["mail.txt"], ["mail.html"], ["mail.txt", "mail.html"]])
def test_template_that_fits_nowhere_gives_way(names: list[str]) -> None:
    """What a template adds may be more than a mail can be."""
    look = Templates("", dict.fromkeys(names, "x" * 50_000))
    raw = digest([group(record("disk full"))], look=look, max_bytes=20_000)
    plain, html = bodies(raw)
    assert len(raw) <= 20_000
    for text in (plain, html):
        assert "disk full" in text
        assert " ".join(text.split()).count("does not fit into 20,000 bytes") == len(names)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"mail.html": "{% if %}"}, r"mail\.html, line 1: "),
        ({"mail.txt": "{{ x", "base.txt": ""}, r"mail\.txt, line 1: "),
        ({"mail.txt": "x", "base.txt": "\n{% nothing %}"}, r"base\.txt, line 2: "),
        ({"letter.txt": "x"}, r"expected any of mail\.html, mail\.txt, subject\.txt, got letter\.txt"),
        ({}, "expected any of .*, got none"),
        ({"mail.txt": 5}, "expected a directory, or a mapping"),
        (5, "expected a directory, or a mapping"),
        ("/nowhere/at/all", "expected a directory"),
    ],
)
def test_templates_are_checked(source: object, said: str) -> None:
    """What can't be parsed or is no template of ours is refused at once."""
    with pytest.raises(ConfigError, match=f"SMTPSink: templates: {said}"):
        Templates("SMTPSink: ", source)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """The error names the directory."""
    (tmp_path / "mail.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="templates: .* can't be read"):
        Templates("", tmp_path)


def test_templates_are_text(tmp_path: Path) -> None:
    """A directory without any of the names is refused, whatever else is in it."""
    (tmp_path / "mail.md").write_text("x")
    with pytest.raises(ConfigError, match="got none"):
        Templates("", tmp_path)


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without jinja2 the error says what to install."""
    missing: Any = None
    monkeypatch.setitem(sys.modules, "jinja2", missing)
    with pytest.raises(MissingExtra, match=r"pip install 'offloop\[mail\]'"):
        Templates("SMTPSink: ", {"mail.txt": "x"})

"""Templates of a user's own, in jinja2. The only module that imports it, and only where templates are given.

They run in a sandbox, with what a mail says and nothing else; values in HTML are escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from offloop.errors import ConfigError, MissingExtra
from offloop.mailing.report import Report

if TYPE_CHECKING:
    from jinja2 import Environment, Template

__all__ = ["NAMES", "Templates"]

NAMES = ("mail.html", "mail.txt", "subject.txt")
_MAX_CHARACTERS = 4 * 1024 * 1024  # of what one gives: a loop without an end has to end somewhere


class Templates:
    """Templates, parsed when they are given."""

    __slots__ = ("_found",)

    def __init__(self, owner: str, source: object) -> None:
        """Parse them.

        Args:
            owner: What an error's message begins with.
            source: A directory with any of `mail.html`, `mail.txt` and `subject.txt`, and what those include or
                extend; or a mapping from names to texts.

        Raises:
            ConfigError: There is none of these, or one of them can't be parsed.
            MissingExtra: jinja2 is not installed.
        """
        texts = _texts(owner, source)
        if not any(name in texts for name in NAMES):
            msg = f"{owner}templates: expected any of {', '.join(NAMES)}, got {', '.join(sorted(texts)) or 'none'}"
            raise ConfigError(msg)
        environment = _environment(owner, texts)
        self._found = {name: _parsed(owner, environment, name) for name in texts if name in NAMES}
        for name in texts:
            _parsed(owner, environment, name)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def html(self, report: Report) -> Iterator[str] | None:
        """The HTML, piece by piece."""
        return self._rendered("mail.html", report)

    def text(self, report: Report) -> Iterator[str] | None:
        """The text, piece by piece."""
        return self._rendered("mail.txt", report)

    def subject(self, report: Report) -> str | None:
        """The subject."""
        pieces = self._rendered("subject.txt", report)
        return None if pieces is None else "".join(pieces)

    def _rendered(self, name: str, report: Report) -> Iterator[str] | None:
        template = self._found.get(name)
        return None if template is None else _bounded(template, report)


def _bounded(template: Template, report: Report) -> Iterator[str]:
    left = _MAX_CHARACTERS
    for piece in template.generate(mail=report):
        left -= len(piece)
        if left < 0:
            msg = f"it gives more than {_MAX_CHARACTERS:,} characters"
            raise ValueError(msg)
        yield piece


def _texts(owner: str, source: object) -> dict[str, str]:
    if isinstance(source, Mapping):
        texts = dict(cast("Mapping[object, object]", source))
        if all(isinstance(name, str) and isinstance(text, str) for name, text in texts.items()):
            return cast("dict[str, str]", texts)
    elif isinstance(source, (str, os.PathLike)):
        folder = Path(cast("str | os.PathLike[str]", source))
        try:
            files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".html", ".txt"} and path.is_file()]
            if folder.is_dir():
                return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in files}
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{owner}templates: {os.fspath(folder)} can't be read: {error}"
            raise ConfigError(msg) from error
    msg = f"{owner}templates: expected a directory, or a mapping from names to texts, got {source!r}"
    raise ConfigError(msg)


def _environment(owner: str, texts: Mapping[str, str]) -> Environment:
    try:
        from jinja2 import DictLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as missing:
        raise MissingExtra(what=f"{owner}templates", package="jinja2", extra="mail") from missing
    return ImmutableSandboxedEnvironment(
        loader=DictLoader(dict(texts)),
        autoescape=_is_html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )


def _is_html(name: str | None) -> bool:
    return name is None or name.endswith(".html")


def _parsed(owner: str, environment: Environment, name: str) -> Template:
    from jinja2 import TemplateError

    try:
        return environment.get_template(name)
    except (TemplateError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        place = f"{name}, line {line}" if line else name
        msg = f"{owner}templates: {place}: {error}"
        raise ConfigError(msg) from error

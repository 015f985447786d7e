"""Secrets, hidden by pattern before anything leaves.

Pure. A text is looked at in windows of some thousand characters: no pattern, not even one that takes the square of what
it looks at, can take that of a megabyte, and none keeps the interpreter for long. A secret that ends where its window
does is looked at once more in a larger one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from offloop.errors import ConfigError

__all__ = ["DEFAULT_PATTERNS", "HIDDEN", "Redactor"]

HIDDEN = "[redacted]"

_WINDOW = 4096  # characters
_OVERLAP = 512  # of a window with the next: what a pattern needs in order to match at all
_LARGE = 65_536  # characters that a secret at a window's end may have

_WORDS = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|credentials?|signature"
    r"|(?:api|access|auth|private|encryption|signing|account)[_-]?key"
)
_HINTS = ("pass", "pwd", "secret", "token", "credential", "signature", "key")
_SCHEME = r"(?:[a-z]{1,20}\s{1,8})?"
_MORE = r"(?:[_-]?(?:key|id|value|hash|text|secret|token|\d{1,4})){0,2}"
# A value always matches, at least up to the end of what may stand in one: no search begins twice in the same place.
# Within a text that is quoted itself, a quote has a backslash before it, and ends at the next such.
_VALUE = (
    r"""\\"(?P<secret>(?:[^"\\\n]|\\(?!")[^\n])*)"""
    r"""|\\'(?P<secret_2>(?:[^'\\\n]|\\(?!')[^\n])*)"""
    r"""|"(?P<secret_3>(?:[^"\\\n]|\\[^\n])*)"""
    r"""|'(?P<secret_4>(?:[^'\\\n]|\\[^\n])*)"""
    r"""|(?P<secret_5>[^\s"'&,;<>(){}\[\]\\]+)"""
)

# Each with the words, in small letters, one of which stands in whatever it matches: most texts have none of them, and
# to look for a word is much quicker than to try a pattern.
_DEFAULTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # password=..., "api_key": "...", ?token=..., secret => ...
    (
        rf"(?i)(?:{_WORDS}){_MORE}(?:\\?[\"'])?\s{{0,8}}(?:=>?|:(?!//))\s{{0,8}}[bru]?(?:{_VALUE})",
        _HINTS,
    ),
    # --client-secret ...
    (rf"(?i)--(?:[a-z0-9]{{1,20}}-){{0,3}}(?:{_WORDS}){_MORE}\s{{1,8}}(?:{_VALUE})", ("--",)),
    # Authorization: Bearer ..., 'authorization': 'Basic ...'
    (
        rf"(?i)authorization(?:\\?[\"'])?\s{{0,8}}[=:]>?\s{{0,8}}[bru]?(?:\\?[\"'])?{_SCHEME}(?P<secret>[^\s\"'\\,;]+)",
        ("authorization",),
    ),
    (r"(?i)\bbearer\s{1,8}(?P<secret>[A-Za-z0-9+/=_.~-]{12,})", ("bearer",)),
    # postgresql://user:...@host
    (r"://[^\s/:@\"'<>]{0,256}:(?P<secret>[^\s/@\"'<>]{1,256})@", ("://",)),
    (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", ("akia", "asia")),
    (r"\b(?:gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255})", ("gh",)),
    (r"\bxox[a-z]-[A-Za-z0-9-]{10,255}", ("xox",)),
    # A JSON Web Token
    (r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?", ("eyj",)),
    (r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----(?P<secret>(?:[^-]|-(?!----))*)", ("private key",)),
    # A payment card; that its check digit is right is looked at behind the pattern.
    (r"(?<![\w.])(?P<card>[2-6]\d{3}(?:[ -]?\d){9,15})(?![\w.]?\d)", ()),
)

DEFAULT_PATTERNS: tuple[str, ...] = tuple(pattern for pattern, _ in _DEFAULTS)
"""What is hidden unless `redact` says otherwise: regular expressions.

Passwords, tokens, secrets and keys behind a name that says so, in text, JSON and URLs; the header `Authorization`; the
password in a URL; access keys of AWS, GitHub and Slack; JSON Web Tokens; private keys in PEM; numbers of payment cards.
Of a match that has groups whose names begin with `secret`, these are hidden, otherwise all of it; where a group is
called `card`, only a number whose check digit is right.
"""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[str]
    groups: tuple[str, ...]
    hints: tuple[str, ...]

    @property
    def card(self) -> bool:
        return "card" in self.groups


class Redactor:
    """The patterns of a sink, checked when it is made."""

    __slots__ = ("_rules",)

    def __init__(self, owner: str, patterns: object = DEFAULT_PATTERNS) -> None:
        """Compile the patterns.

        Args:
            owner: What an error's message begins with.
            patterns: Regular expressions, as text or compiled.

        Raises:
            ConfigError: One of them is none.
        """
        if isinstance(patterns, (str, bytes, re.Pattern)) or not isinstance(patterns, Iterable):
            msg = (
                f"{owner}redact: expected a list of regular expressions, as in redact=(*DEFAULT_PATTERNS, r'...'), "
                f"or () for none, got {patterns!r}"
            )
            raise ConfigError(msg)
        self._rules: Sequence[_Rule] = tuple(_rule(owner, one) for one in cast("Iterable[object]", patterns))

    def __call__(self, text: str, breathe: Callable[[], object] = bool) -> str:
        """The text with its secrets written as `[redacted]`.

        Args:
            text: Any text; it is read from its beginning to its end, so what is to be cut is better cut before.
            breathe: Called between pieces of work.
        """
        spans = sorted(_found(self._rules, text, breathe))
        if not spans:
            return text
        pieces: list[str] = []
        done = 0
        for start, end in spans:
            if start >= done:
                pieces += (text[done:start], HIDDEN)
            done = max(done, end)
        pieces.append(text[done:])
        return "".join(pieces)

    def pair(self, name: str, value: str, breathe: Callable[[], object] = bool) -> str:
        """The value of something that has a name; hidden whole if the name is that of a secret."""
        if name and self(f"{name}=0000") != f"{name}=0000":
            return HIDDEN
        return self(value, breathe)


def _rule(owner: str, pattern: object) -> _Rule:
    try:
        compiled = re.compile(pattern) if isinstance(pattern, str) else cast("re.Pattern[str]", pattern)
        nothing = compiled.match("")
    except (re.error, TypeError, AttributeError, RecursionError, OverflowError) as error:
        msg = f"{owner}redact: expected regular expressions, as text or compiled of text, got {pattern!r} ({error})"
        raise ConfigError(msg) from error
    if nothing is not None:
        msg = f"{owner}redact: {compiled.pattern!r} matches nothing at all, and so everywhere"
        raise ConfigError(msg)
    groups = tuple(name for name in compiled.groupindex if name == "card" or name.startswith("secret"))
    return _Rule(compiled, groups, dict(_DEFAULTS).get(compiled.pattern, ()))


def _found(rules: Sequence[_Rule], text: str, breathe: Callable[[], object]) -> Iterator[tuple[int, int]]:
    """Where in the text something is to be hidden; what two windows see may come twice."""
    length = len(text)
    start = 0
    while rules and start < length:
        end = min(start + _WINDOW, length)
        small = text[start:end].lower()
        for rule in rules:
            if not rule.hints or any(hint in small for hint in rule.hints):
                yield from _matched(rule, text, start, end)
                breathe()
        start = length if end == length else end - _OVERLAP


def _matched(rule: _Rule, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    length = len(text)
    for match in rule.pattern.finditer(text, start, end):
        whole: re.Match[str] | None = match
        if match.end() == end < length:
            # Perhaps there is more of it, perhaps it only looks so for want of what follows.
            whole = rule.pattern.match(text, match.start(), min(match.start() + _LARGE, length))
        if whole is not None:
            yield from _spans(rule, whole)


def _spans(rule: _Rule, match: re.Match[str]) -> Iterator[tuple[int, int]]:
    if rule.card and not _is_card(match["card"]):
        return
    named = [match.span(name) for name in rule.groups if match[name] is not None]
    for start, end in named or [match.span()]:
        if end > start:
            yield start, end


def _is_card(text: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1, annex B)."""
    digits = [int(character) for character in text if character.isdecimal()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[::-2])) % 10 == 0

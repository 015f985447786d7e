"""Any value as JSON bytes, whatever it is; the one module that imports msgspec.

`to_json` never raises. What JSON has no form for is written as follows, with msgspec and without it: NaN and infinities
as null, bytes as base64, dates as ISO 8601, sets as arrays, a lone surrogate as its escape in text, an integer too long
to be written in decimal as hexadecimal text, a container within itself or far down as its shortened `repr`, anything
else as its `str`. Control characters, line separators and marks that turn the direction of text are escaped.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import date, time
from enum import Enum
from typing import cast

from offloop.capture import fixed, scalar_of, text_of

__all__ = ["DEL", "from_msgpack", "quickly", "shown", "standard_json", "to_json", "to_msgpack"]

_MAX_DEPTH = 12  # what capture lets through, and a record around it
_MAX_BITS = 4096  # the interpreter refuses to write much longer integers in decimal

# What JSON lets through as it is, and a terminal or a reader that splits lines takes for more than text (see
# `TextFormatter`): DEL, C1 with U+0085, the line and paragraph separators, the marks of direction. In UTF-8 none of
# these lead bytes is ever a part of another character.
DEL = 0x7F  # as a number: to look for a byte is ten times as quick as to look for bytes of length one
_unsafe = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def _unknown(value: object) -> object:
    """What the standard encoder can't write, as msgspec would."""
    if isinstance(value, (date, time)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, (bytes, bytearray)):
        return b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        return list(cast("set[object]", value))
    if isinstance(value, Enum):
        return value.value
    return scalar_of(value)


_standard = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_unknown)


def _by_standard(value: object) -> bytes:
    return _standard.encode(value).encode()


quickly: Callable[[object], bytes]
"""As `to_json`, but raises, and escapes nothing of what is not plain: see `shown`."""
to_msgpack: Callable[[object], bytes] | None = None
"""A tree of plain values as MessagePack; raises on any other, and on a lone surrogate. None without msgspec."""
from_msgpack: Callable[[bytes], object] | None = None
"""The way back."""
try:
    import msgspec
except ImportError:  # no wheel for this build of Python
    quickly = _by_standard
else:
    quickly = msgspec.json.Encoder(enc_hook=scalar_of).encode
    to_msgpack = msgspec.msgpack.Encoder().encode
    from_msgpack = msgspec.msgpack.Decoder().decode


def to_json(value: object) -> bytes:
    """The value as UTF-8 JSON on one line."""
    try:
        data = quickly(value)
    except Exception:  # noqa: BLE001 - whatever it is, the form below has nothing left to object to
        data = _by_standard(_tame(fixed(value, _MAX_DEPTH)))
    return data if data.isascii() and DEL not in data else shown(data)


def standard_json(value: object) -> bytes:
    """As `to_json`, with the standard library's encoder alone."""
    try:
        data = _by_standard(value)
    except Exception:  # noqa: BLE001 - as above
        data = _by_standard(_tame(fixed(value, _MAX_DEPTH)))
    return shown(data)


def shown(data: bytes) -> bytes:
    """JSON with escapes for what is more than text."""
    # A look for each lead byte costs next to nothing, and spares most records the expression.
    if DEL in data or 0xE2 in data or 0xC2 in data or 0xD8 in data:  # noqa: PLR2004 - they stand above
        return _unsafe.sub(_escape, data)
    return data


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\u%04x" % ord(match.group().decode())


def _tame(value: object) -> object:
    """The value in forms that any encoder takes: a tree of plain values, as `capture.fixed` made it."""
    cls = type(value)
    if cls is dict:
        pairs = cast("dict[object, object]", value).items()
        return {_written(text_of(key)): _tame(item) for key, item in pairs}
    if cls in {list, tuple, set, frozenset}:
        return [_tame(item) for item in cast("Iterable[object]", value)]
    if cls is int:
        number = cast("int", value)
        return number if number.bit_length() <= _MAX_BITS else hex(number)
    if cls is float:
        return value if math.isfinite(cast("float", value)) else None
    if value is None or cls is bool:
        return value
    plain = _unknown(value)
    return _written(plain if type(plain) is str else text_of(plain))


def _written(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate becomes its escape."""
    return text.encode("utf-8", "backslashreplace").decode()

"""Values as JSON, with msgspec and without."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import subprocess
import sys
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offloop.formatters.encoding import standard_json, to_json


class Colour(enum.Enum):
    RED = "red"


usual = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.datetimes() | st.uuids() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=50)
@given(usual)
def test_both_encoders_agree(value) -> None:
    """Without msgspec the output is the same for usual values."""
    assert to_json(value) == standard_json(value)


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
        dt.datetime(2026, 11, 22, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        dt.time(1, 2),
        decimal.Decimal("1.50"),
        uuid.UUID(int=7),
        Colour.RED,
        {1},
        frozenset({1}),
        (1, 2),
        math.nan,
        [math.inf, 1.5],
        "\ud800",
        [10**5000],
        10**40,
        -0.0,
        {"a": object},
        "\x00\x1f\x7f\u2028",
    ],
)
def test_both_encoders_agree_on_less_usual_values(value) -> None:
    """So it is for dates, numbers, sets and text."""
    assert to_json(value) == standard_json(value)


_CONTROLS = [chr(code) for code in (*range(32), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x200E, 0x202E, 0x2066, 0x061C)]


@given(st.text(st.sampled_from(_CONTROLS) | st.characters(exclude_categories=["Cs"])))
def test_control_characters_are_escaped_and_come_back(text) -> None:
    """No control character, line separator or mark of direction is in the bytes; a reader has the text as it was."""
    data = to_json({text: text})
    assert not set(data.decode()) & set(_CONTROLS)
    assert json.loads(data) == {text: text}
    assert data == standard_json({text: text})


def test_other_text_stays_as_it_is() -> None:
    """Nothing else is escaped, least of all a neighbour in UTF-8."""
    text = "\u00a0\u00e4\u0430\u061b\u061d\u200d\u2027\u202f\u2065\u206a\uff08\U0001f600"
    assert to_json(text) == f'"{text}"'.encode()


def test_value_whose_methods_raise() -> None:
    """A `str` that fails is named in its place."""

    class Mute:
        def __str__(self) -> str:
            raise OSError

    assert to_json([Mute()]) == standard_json([Mute()]) == b'["<str() of Mute failed: OSError>"]'


def test_safe_form_keeps_dates_and_bytes() -> None:
    """One value that needs the safe form does not change those beside it."""
    values = [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), b"\x00", True, None, {"a": {1}}]
    assert to_json([*values, "\ud800"]) == to_json([*values, "\\ud800"])


def test_without_msgspec_the_package_works() -> None:
    """On a build of Python that msgspec has no wheel for, records are encoded alike."""
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        "import logging\n"
        "from offloop.formatters import JSONFormatter\n"
        "print(JSONFormatter(static={'x': float('nan')}).format(logging.makeLogRecord({'msg': 'h', 'created': 0})))"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.startswith('{"time":"1970-01-01T00:00:00.000000Z","level":"Level None","logger":null,"message":"h"')
    assert output.endswith('"x":null}\n')

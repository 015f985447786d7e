"""The sink of the how-to, and its test of the contract."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "own-sink.md"
PROGRAM = re.compile(r'^```python title="(\w+\.py)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
OPTIONS = ["-q", "-p", "no:anyio", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-c", "pytest.ini"]


def test_sink_of_the_how_to_keeps_the_contract(tmp_path: Path) -> None:
    """The page's sink passes the page's test."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    for name, code in PROGRAM.findall(PAGE.read_text("utf-8")):
        (tmp_path / name).write_text(code, "utf-8")

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", *OPTIONS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert " passed" in ended.stdout

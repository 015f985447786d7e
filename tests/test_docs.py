"""Each Python snippet of README.md and docs/ runs as it stands.

A fenced `python` block is a program: it runs in a process and an empty directory of its own, with warnings as errors.
Two comments on the line before a block change that:

    <!-- not run: reason -->    shown only
    <!-- continues -->          runs after the blocks of the page it continues, in one program with them
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]

BLOCK = re.compile(
    r"^(?P<indent>[ ]*)(?:<!-- (?P<mark>[^\n]*?) -->[ ]*\n(?:[ ]*\n)?[ ]*)?"
    r"```[ ]?(?:python|py)\b[^\n]*\n(?P<code>.*?)^[ ]*```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Snippet:
    """A block of a page: what runs is what it continues, and itself."""

    place: str
    code: str


def snippets(text: str, name: str) -> list[Snippet]:
    """The blocks of a page that run, in order."""
    found: list[Snippet] = []
    for block in BLOCK.finditer(text):
        mark = block["mark"] or ""
        if mark.startswith("not run: "):
            continue
        line = text.count("\n", 0, block.start("code")) + 1
        before = found[-1].code if mark == "continues" and found else ""
        indent = re.compile(f"^{block['indent']}", re.MULTILINE)
        found.append(Snippet(f"{name}:{line}", before + indent.sub("", block["code"])))
    return found


SNIPPETS = [
    snippet for page in PAGES for snippet in snippets(page.read_text("utf-8"), page.relative_to(ROOT).as_posix())
]


@pytest.mark.once
@pytest.mark.parametrize("snippet", [pytest.param(snippet, id=snippet.place) for snippet in SNIPPETS])
def test_snippet_runs(snippet: Snippet, tmp_path: Path) -> None:
    """A snippet ends without an error and without a warning."""
    program = tmp_path / "snippet.py"
    program.write_text(snippet.code, "utf-8")

    ended = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 0, f"{snippet.place}\n{ended.stdout}{ended.stderr}"


def test_blocks_are_found_marked_and_continued() -> None:
    """Marks are honoured, indented blocks are dedented, and other languages are left alone."""
    page = (
        "```python\na = 1\n```\n\n<!-- continues -->\n```python\nprint(a)\n```\n"
        "<!-- not run: needs a server -->\n\n```python\nserve()\n```\n```console\n$ ls\n```\n"
        '- item\n\n    ```python title="b.py"\n    if a:\n        pass\n    ```\n'
    )

    assert snippets(page, "page") == [
        Snippet("page:2", "a = 1\n"),
        Snippet("page:7", "a = 1\nprint(a)\n"),
        Snippet("page:20", "if a:\n    pass\n"),
    ]

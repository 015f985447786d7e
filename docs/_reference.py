"""The reference, made from docstrings while the documentation is built: one page for each public area.

A module that is added to an area's folder is on its page without a change here.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation

PACKAGE = Path(__file__).parent.parent / "src" / "offloop"
KINDS = ["Offloop", "Tutorial", "How to", "Reference", "Explanation"]

# File name: title, and the modules, as patterns of paths under src/offloop.
AREAS = {
    "pipeline": ("Pipeline", ["pipeline.py"]),
    "pair": ("Handler and listener", ["handler.py", "listener.py"]),
    "sinks": ("Sinks", ["sinks/[!_]*.py"]),
    "sink": ("The contract of a sink", ["sink.py", "policies.py"]),
    "records": ("Records", ["capture.py", "tracebacks.py"]),
    "formatters": ("Formatters", ["formatters/[!_]*.py"]),
    "stats": ("Stats and reports", ["ledger.py"]),
    "errors": ("Errors", ["errors.py"]),
    "testing": ("Testing", ["testing.py", "testing/__init__.py"]),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference."""
    for name, (title, patterns) in AREAS.items():
        text = page(title, patterns)
        if text:
            files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:  # noqa: ARG001 - the hook's signature
    """Order the kinds of pages as one reads them, and the reference from the front door inwards."""
    nav.items.sort(key=lambda item: KINDS.index(item.title) if item.title in KINDS else 0)
    order = ["index", *AREAS]
    for section in nav.items:
        if section.title == "Reference" and section.children:
            section.children.sort(key=lambda child: order.index(Path(child.file.src_uri).stem))
    return nav


def page(title: str, patterns: list[str]) -> str:
    """One page's Markdown; empty where the area has no module."""
    modules = [module(path) for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]
    if not modules:
        return ""
    return f"# {title}\n\n" + "\n".join(f"::: {name}\n" for name in modules)


def module(path: Path) -> str:
    """The dotted name of a source file's module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

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

# The pages of a kind, in the order in which its index names them.
PAGES = {
    "How to": [
        "fastapi",
        "aiohttp",
        "mail",
        "tcp",
        "fallback",
        "spool",
        "own-sink",
        "handlers",
        "fast-records",
        "testing",
        "dictconfig",
        "structlog-loguru",
    ],
    "Explanation": [
        "journey",
        "never-blocks",
        "threads",
        "ends",
        "spool",
        "failures",
        "digests",
        "loss",
        "performance",
        "tested",
    ],
}

# What users need of modules whose other names are for the rooms around them.
MEMBERS = {
    "capture.py": ["Record", "restore", "extras", "message_of"],
    "formatters/encoding.py": ["to_json"],
    "handler.py": ["QueueHandler"],
    "ledger.py": ["Stats", "Report", "Counts"],
    "mailing/redaction.py": ["DEFAULT_PATTERNS"],
    "mailing/report.py": ["Report", "Section", "Entry"],
    "mailing/routes.py": ["Recipient"],
    "mailing/sink.py": ["MailSink"],
    "mailing/traces.py": ["Failure", "Call"],
    "records.py": ["FastRecord", "install", "make", "uninstall"],
    "policies.py": ["Batching", "Retry", "Breaker", "Buffer"],
    "spool.py": ["Spool"],
    "tracebacks.py": ["FrozenException", "Frame"],
}

# File name: title, and the modules, as patterns of paths under src/offloop.
AREAS = {
    "pipeline": ("Pipeline", ["pipeline.py"]),
    "pair": ("Handler and listener", ["handler.py", "listener.py"]),
    "sinks": ("Sinks", ["sinks/tcp.py", "sinks/smtp.py", "sinks/handler.py", "sinks/function.py", "sinks/[!_]*.py"]),
    "digests": ("Digests", ["digest.py"]),
    "mails": ("Mails", [f"mailing/{room}.py" for room in ("sink", "routes", "redaction", "report", "traces")]),
    "sink": ("The contract of a sink", ["sink.py", "policies.py", "spool.py"]),
    "records": ("Records", ["records.py", "capture.py", "tracebacks.py"]),
    "formatters": ("Formatters", ["formatters/json.py", "formatters/text.py", "formatters/encoding.py"]),
    "stats": ("Stats and reports", ["ledger.py"]),
    "errors": ("Errors", ["errors.py"]),
    "testing": ("Testing", ["testing/__init__.py"]),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference."""
    for name, (title, patterns) in AREAS.items():
        text = page(title, patterns)
        if text:
            files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:  # noqa: ARG001 - the hook's signature
    """Order the kinds of pages as one reads them, and the pages of each; the reference from the front door inwards."""
    nav.items.sort(key=lambda item: KINDS.index(item.title) if item.title in KINDS else 0)
    for section in nav.items:
        order = ["index", *PAGES.get(section.title, ()), *AREAS]
        if section.children:
            section.children.sort(key=lambda child: order.index(Path(child.file.src_uri).stem))
    return nav


def page(title: str, patterns: list[str]) -> str:
    """One page's Markdown; empty where the area has no module."""
    paths = [path for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]
    if not paths:
        return ""
    # A rule between two modules: what a module says of itself would look like the end of the one before.
    return f"# {title}\n\n" + "\n---\n\n".join(map(block, dict.fromkeys(paths)))


def block(path: Path) -> str:
    """The directive that has a module rendered."""
    members = MEMBERS.get(path.relative_to(PACKAGE).as_posix())
    options = "" if members is None else f"    options:\n      members: [{', '.join(members)}]\n"
    return f"::: {module(path)}\n{options}"


def module(path: Path) -> str:
    """The dotted name of a source file's module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

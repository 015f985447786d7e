"""What a change must pass: `nox` runs all of it, `nox -l` says what there is, `nox -s tests-3.12 -- -k lane` a part.

The tests run on each interpreter of PYTHONS that is found, on PATH or with pyenv; nox reports the others as skipped.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "typing", "docs", "build", "tests", "machine", "coverage"]

PYTHONS = ["3.11", "3.12", "3.13", "3.14", "3.15"]
PROJECT = nox.project.load_toml("pyproject.toml")
COVERAGE_DATA = ".coverage-data"


def group(name: str) -> list[str]:
    """The requirements of one of pyproject's dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, name))


def path_with_pyenv() -> str:
    """PATH with the interpreters that pyenv built behind it, and without its shims.

    A shim stands for every version that any interpreter has, and fails for those that are not the current one.
    """
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    current = [entry for entry in os.environ.get("PATH", "").split(os.pathsep) if entry != str(root / "shims")]
    built = [
        str(entry) for version in PYTHONS for entry in sorted(root.glob(f"versions/{version}.*/bin"), reverse=True)
    ]
    return os.pathsep.join(current + built)


os.environ["PATH"] = path_with_pyenv()


def newest() -> str:
    """The newest interpreter that is found."""
    return next((version for version in reversed(PYTHONS) if shutil.which(f"python{version}")), PYTHONS[0])


@nox.session
def lint(session: nox.Session) -> None:
    """Style and the order of the rooms: ruff and import-linter."""
    session.install("-e.", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", "--diff", ".")
    session.run("lint-imports", "--no-logo", silent=False)


@nox.session
def typing(session: nox.Session) -> None:
    """Types: mypy and pyright, both strict."""
    session.install("-e.[all]", *group("typing"), *group("test"), *group("peers"), "nox")
    session.run("mypy")
    # The system's node may be too old or missing; the wheel's is neither.
    session.run("pyright", env={"PYRIGHT_PYTHON_GLOBAL_NODE": "0"})


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests, warnings as errors. Arguments go to pytest."""
    session.install("-e.[all]", *group("test"))
    data = Path(COVERAGE_DATA) / str(session.python)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    env = {"COVERAGE_FILE": str(data.resolve() / "coverage")}
    if session.python != newest():
        env["OFFLOOP_ONCE"] = "0"  # what takes long and is no matter of the interpreter runs on the newest one
    # Two at a time: much of it is waiting. 5: nothing was selected. What is selected and fails is 1.
    session.run("coverage", "run", "-m", "pytest", "-n", "2", *session.posargs, env=env, success_codes=[0, 5])


@nox.session
def examples(session: nox.Session) -> None:
    """The examples alone, against servers on loopback; `tests` runs them too, on each interpreter."""
    session.install("-e.[all]", *group("test"))
    session.run("pytest", "tests/examples", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """What the tests of all interpreters reached together, with a gate on branches."""
    session.install("coverage>=7.10")
    found = sorted({str(data.parent) for data in Path(COVERAGE_DATA).glob("*/coverage.*")})
    if not found:
        session.error("no data: run the tests first (nox -s tests)")
    env = {"COVERAGE_FILE": str(Path(COVERAGE_DATA).resolve() / "coverage")}
    session.run("coverage", "combine", "--quiet", "--keep", *found, env=env)
    session.run("coverage", "report", *session.posargs, env=env)


@nox.session
def loss(session: nox.Session) -> None:
    """Every way to end, fork and fail, next to others: writes docs/explanation/loss.md. Three minutes on two cores."""
    session.install("-e.[all]", *group("test"), *group("peers"))
    session.run("python", "-m", "losses", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session(python=newest())
def bench(session: nox.Session) -> None:
    """What offloop costs, beside others: writes docs/explanation/performance.md, its .json and its figures.

    A quarter of an hour on a machine that does nothing else. `-- --only calls delay` measures these parts anew,
    `-- --quick` prints what two minutes give, `-- --render` makes the page of what was measured before.
    """
    session.install("-e.", *group("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def instructions(session: nox.Session) -> None:
    """By how much a change moved the instructions of the hot path; needs valgrind. `-- --write` keeps the figures."""
    session.install("-e.")
    session.run("python", "-m", "benchmarks.instructions", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, strict: a link that leads nowhere is an error. `-- serve` shows it while it is written."""
    session.install("-e.[all]", *group("docs"))
    env = {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement, on every build
    if session.posargs:
        session.run("mkdocs", *session.posargs, env=env)
    else:
        session.run("mkdocs", "build", "--strict", "--quiet", "--site-dir", session.create_tmp(), env=env)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel, from the sdist, in an environment of its own: it is installed, imported and run."""
    session.install(*group("build"))
    work = Path(session.create_tmp()).resolve()
    shutil.rmtree(work / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(work / "dist"), silent=True)
    (wheel,) = (work / "dist").glob("*.whl")
    session.run("python", "-m", "venv", "--clear", str(work / "fresh"))
    python = str(work / "fresh" / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel), external=True)
    session.run(python, "-W", "error", "-c", "import offloop; print(offloop.__file__)", external=True)
    session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[demo]", external=True)
    session.run(str(work / "fresh" / "bin" / "offloop"), "--help", external=True, silent=True)


@nox.session(python=newest())
def machine(session: nox.Session) -> None:
    """10,000 random interleavings of all that happens to a pipeline, and how often each thing did. `-- --seed 1`."""
    session.install("-e.", *group("test"))
    session.run("python", "tests/machine.py", "--examples", "10000", "--spooled", "300", *session.posargs)


@nox.session(python=newest())
def nightly(session: nox.Session) -> None:
    """What takes too long for each change: the spool killed 200 times and at every system call, each byte turned.

    And 100,000 interleavings, or as many as fit into an hour each without and with a spool.
    """
    session.install("-e.[all]", *group("test"))
    env = {"OFFLOOP_CRASHES": "0"}
    tests = ["tests/spooling/test_crash.py", "tests/spooling/test_flips.py"]
    session.run("pytest", "-rP", "-n", "2", *tests, *session.posargs, env=env)
    session.run("python", "tests/machine.py", "--examples", "100000", "--spooled", "10000", "--seconds", "3600")


@nox.session(python=newest())
def soak(session: nox.Session) -> None:
    """A pipeline for 20 minutes behind proxies that go wrong. `-- --minutes 3`."""
    session.install("-e.", *group("test"))
    session.run("python", "-W", "error", "tests/soak.py", *session.posargs)

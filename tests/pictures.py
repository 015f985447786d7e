"""Takes the pictures of a digest mail that are in docs/images: `python tests/pictures.py docs/images`.

Needs Chromium. Not run in CI; run it when the mail's look has changed, and look at
what it gives.
"""

from __future__ import annotations

import json
import linecache
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mails import NOON, bodies, caught, digest, group, over
from offloop.capture import Record, capture, restore
from offloop.digest import Cap, Gathered, Group
from offloop.formatters.text import TextFormatter
from offloop.mailing.report import Known

WIDTHS = {"telephone": (390, 1182), "desktop": (1100, 992)}
SCHEMES = {"light": "1", "dark": "0"}  # Blink's numbers for them

CART = """\
import statistics


def price(article, prices):
    return prices[article]


def average(cart, prices):
    return statistics.fmean(price(article, prices) for article in cart)
"""
FEED = """\
import json


class FeedError(Exception):
    pass


def read(text):
    try:
        return json.loads(text)
    except ValueError as error:
        raise FeedError("the supplier's feed is no JSON") from error
"""


def application(name: str, source: str) -> dict[str, Any]:
    """Give the names of a module that is said to lie in an application's folder."""
    path = f"/srv/shop/{name}.py"
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    names: dict[str, Any] = {"__name__": f"shop.{name}"}
    exec(compile(source, path, "exec"), names)
    return names


def logged(
    logger: str, message: str, *args: object, level: int = logging.ERROR, after: float = 0, **more: Any
) -> Record:
    """Give a record as a sink gets it."""
    path, line = more.pop("at", ("/srv/shop/app.py", 88))
    record = logging.LogRecord(f"shop.{logger}", level, path, line, message, args, more.pop("exc_info", None), "handle")
    record.__dict__.update({"created": NOON + after, "taskName": "request-4711", "process": 4711} | more)
    return restore(capture(record))


def raised(function: Callable[[], object]) -> Any:
    """Give what a function of the application raises, without the calls here."""
    kind, error, trace = caught(function)
    ours = {raised.__code__.co_filename, caught.__code__.co_filename}
    while trace is not None and trace.tb_frame.f_code.co_filename in ours:
        trace = trace.tb_next
    return kind, error.with_traceback(trace), trace


def kinds() -> Gathered:
    """Give a digest of three kinds."""
    cart, feed = application("cart", CART), application("feed", FEED)
    trace: dict[str, Any] = {"otelTraceID": "4bf92f3577b34da6a3ce929d0e0e4736", "cart": 81_244}
    missing = [
        logged("cart", "no price for cart %d", 81_244 + number, after=7 * number, **trace,
               exc_info=raised(lambda number=number: cart["average"]([f"sku-{17 + number}"], {})))
        for number in range(3)
    ]  # fmt: skip
    before = (
        logged("http", "POST /checkout cart=81244", level=logging.INFO, after=-0.4),
        logged("stock", "prices reloaded in 0.3 s, %d of %d articles", 9_412, 9_413, level=logging.WARNING, after=-0.2),
    )
    first = group(
        *missing, more=406, preceding=before, last=NOON + 598, kind="a1" * 8,
        rate=(1, 2, 4, 9, 22, 31, 38, 41, 35, 33, 36, 29, 30, 24, 21, 18, 12, 9, 8, 6),
    )  # fmt: skip
    broken = logged(
        "feed", "supplier %s skipped", "north", after=120, api_key="8f14e45fceea167a",
        exc_info=raised(lambda: feed["read"]('{"articles": [')),
    )  # fmt: skip
    second = group(broken, more=2, last=NOON + 480, kind="b2" * 8, mails=3, total=57, since=NOON - 9_000)
    third = over(kind="c3" * 8, total=26_113, since=NOON - 7_200, first=NOON - 600, last=NOON - 600)
    groups: tuple[Group, ...] = (first, second, third)
    return Gathered(groups=groups, cap=Cap(mails=30, per="hour", until=NOON + 3_600))


def shoot(chromium: str, page: Path, picture: Path, size: tuple[int, int], scheme: str) -> None:
    """Take a picture of a page."""
    width, height = size
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--user-data-dir={profile}",
             f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={width},{height}",
             f"--screenshot={picture}", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip


def main(folder: str) -> None:
    """Write the four pictures, and the mail itself beside them in a directory of its own."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("chromium is not on the PATH")
    known = {
        "c3" * 8: Known("TimeoutError in stock.py: database", "TimeoutError in stock.py", "ERROR", 40, "shop.stock")
    }
    raw = digest(kinds(), known=known, formatter=TextFormatter(multiline=True), release="2.14.1")
    text, html = bodies(raw)
    with tempfile.TemporaryDirectory() as scratch:
        for place, size in WIDTHS.items():
            page = Path(scratch) / f"{place}.html"
            page.write_text(html, "utf-8")
            for name, scheme in SCHEMES.items():
                shoot(chromium, page, Path(folder).resolve() / f"mail-{place}-{name}.png", size, scheme)
    print(json.dumps({"bytes": len(raw), "html": len(html)}))
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])

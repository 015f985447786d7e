"""An aiohttp application that logs through offloop, with one line for it: `cleanup_ctx.append`.

Errors are mailed, everything from INFO on is sent to a collector as JSON. Run each of these in a terminal of its own:

    python -m aiosmtpd -n -l localhost:1025    # a mail server that prints what it gets
    ncat -lk 9020                              # a collector that prints what it gets
    python examples/aiohttp_app.py
    curl localhost:8080/divide/6/3             # a line at the collector
    curl localhost:8080/divide/6/0             # a line there, and a mail

aiohttp's own access log (logger `aiohttp.access`) is at the collector too. Ctrl-C ends the application when what was
logged is delivered, after 5 seconds at most.

SMTP_HOST, SMTP_PORT, LOG_HOST and LOG_PORT name other servers; PORT is the application's own.
"""

from __future__ import annotations

import logging
import os

from aiohttp import web

from offloop import Pipeline, SMTPSink, TCPSink

pipeline = Pipeline(
    SMTPSink(
        os.environ.get("SMTP_HOST", "localhost"),
        int(os.environ.get("SMTP_PORT", "1025")),
        sender="calculator@example.org",
        to="on-call@example.org",
        level="ERROR",
    ),
    TCPSink(os.environ.get("LOG_HOST", "localhost"), int(os.environ.get("LOG_PORT", "9020"))),
    level="INFO",
)
logger = logging.getLogger("calculator")


async def divide(request: web.Request) -> web.Response:
    number, by = int(request.match_info["number"]), int(request.match_info["by"])
    logger.info("dividing %d by %d", number, by)
    try:
        return web.json_response({"result": number / by})
    except ZeroDivisionError:
        logger.exception("%d can't be divided by %d", number, by)
        raise web.HTTPBadRequest from None


def make_app() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(pipeline)
    app.router.add_get(r"/divide/{number:\d+}/{by:\d+}", divide)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), host="localhost", port=int(os.environ.get("PORT", "8080")))

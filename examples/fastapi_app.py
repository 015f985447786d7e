"""A FastAPI application whose log goes to a mailbox and to a collector, and whose requests wait for neither.

Errors are mailed, everything from INFO on is sent as JSON, one object a line. Run each of these in a terminal of its
own:

    python -m aiosmtpd -n -l localhost:1025        # a mail server that prints what it gets
    ncat -lk 9020                                  # a collector that prints what it gets
    uvicorn --app-dir examples --workers 2 fastapi_app:app
    curl localhost:8000/orders/7                   # a line at the collector
    curl -X POST localhost:8000/orders/7/payment   # a line there, and a mail

Now stop the mail server with Ctrl-Z and pay for more orders: the answers come as quickly as before. `fg` lets the mail
server go on, and the mails arrive. Ctrl-C ends uvicorn when what was logged is delivered, after 5 seconds at most.

SMTP_HOST, SMTP_PORT, LOG_HOST and LOG_PORT name other servers.
"""

from __future__ import annotations

import logging
import os

from fastapi import FastAPI, HTTPException

from offloop import Pipeline, SMTPSink, TCPSink

pipeline = Pipeline(
    SMTPSink(
        os.environ.get("SMTP_HOST", "localhost"),
        int(os.environ.get("SMTP_PORT", "1025")),
        sender="Shop <shop@example.org>",
        to="on-call@example.org",
        level="ERROR",
    ),
    TCPSink(os.environ.get("LOG_HOST", "localhost"), int(os.environ.get("LOG_PORT", "9020"))),
    level="INFO",
)
app = FastAPI(lifespan=pipeline)  # entered in each worker process, and left when the worker ends
logger = logging.getLogger("shop")


@app.get("/orders/{number}")
async def show(number: int) -> dict[str, int]:
    logger.info("order %d was looked at", number)
    return {"order": number, "worker": os.getpid()}


@app.post("/orders/{number}/payment")
async def pay(number: int) -> dict[str, int]:
    try:
        charge(number)
    except ConnectionError as error:
        logger.exception("order %d could not be paid", number)
        raise HTTPException(502, {"order": number, "worker": os.getpid()}) from error
    return {"order": number, "worker": os.getpid()}


def charge(number: int) -> None:
    raise ConnectionError(f"the bank does not want to hear of order {number}")

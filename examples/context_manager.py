"""A program of one's own: what is logged inside `async with Pipeline(...)` is delivered when the block is left.

Ten jobs run at once, and two of them fail. Run each of these in a terminal of its own:

    python -m aiosmtpd -n -l localhost:1025    # a mail server that prints what it gets
    ncat -lk 9020                              # a collector that prints what it gets
    python examples/context_manager.py

One sees ten lines at the collector, a mail or two about the failures, and what the program prints: how long the jobs
took (the mail server has no part in it), and how many records each destination has.

SMTP_HOST, SMTP_PORT, LOG_HOST and LOG_PORT name other servers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time

from offloop import Pipeline, SMTPSink, TCPSink

logger = logging.getLogger("jobs")


async def job(number: int) -> None:
    await asyncio.sleep(0.01 * number)
    if number % 4 == 3:
        logger.error("job %d failed", number)
    else:
        logger.info("job %d is done", number)


async def main() -> None:
    mail = SMTPSink(
        os.environ.get("SMTP_HOST", "localhost"),
        int(os.environ.get("SMTP_PORT", "1025")),
        sender="jobs@example.org",
        to="on-call@example.org",
        level="ERROR",
        name="mail",
    )
    collector = TCPSink(
        os.environ.get("LOG_HOST", "localhost"), int(os.environ.get("LOG_PORT", "9020")), name="collector"
    )
    async with Pipeline(mail, collector, level="INFO") as pipeline:
        started = time.perf_counter()
        await asyncio.gather(*(job(number) for number in range(10)))
        print(f"10 jobs in {time.perf_counter() - started:.2f} s")

    for name, counts in pipeline.stats().sinks.items():
        print(f"{name}: {counts.delivered} delivered, {counts.lost} lost")


if __name__ == "__main__":
    asyncio.run(main())

"""A sink of one's own: subclass `Sink`, write `send`, and say by what it raises how it failed.

This one posts each batch to a webhook. What the lane does about a failure (try again and when, give up on a record,
wait for somebody to correct the password) is its business, and `send` has no loop in it. Run:

    python examples/own_sink.py

Without WEBHOOK_URL it posts to a receiver in this very program, which says "later" to the first batch, takes the second
attempt, and refuses what has the word "poison" in it. One sees what the receiver did, and then the sink's account.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientError, ClientSession, web

from offloop import Batch, Batching, PermanentFailure, Pipeline, Retry, Sink, SinkFailure, TemporaryFailure

logger = logging.getLogger("app")


class WebhookSink(Sink):
    def __init__(self, url: str, **sink: Any) -> None:
        super().__init__(**sink)
        self._url = url
        self._session: ClientSession | None = None

    async def open(self) -> None:
        await self.aclose()
        self._session = ClientSession()

    async def send(self, batch: Batch) -> None:
        assert self._session is not None
        body = b"[" + b",".join(batch.encoded) + b"]"  # encoded: JSON, unless the sink was given another formatter
        # The key is the same in each attempt, so that a receiver can tell a batch it has already.
        headers = {"Content-Type": "application/json", "Idempotency-Key": batch.key}
        try:
            async with self._session.post(self._url, data=body, headers=headers) as reply:
                status = reply.status
        except ClientError as error:
            raise TemporaryFailure(str(error)) from error  # sent again after a while, as after OSError and TimeoutError
        if status in (401, 403):
            raise SinkFailure(f"{status}: is the address right?")  # kept until it is put right
        if status == 429 or status >= 500:
            raise TemporaryFailure(str(status))
        if status >= 400:
            raise PermanentFailure(str(status))  # the receiver will never take these: not sent again

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def main(url: str) -> None:
    # One record a post, so that a refusal costs one record.
    sink = WebhookSink(url, level="WARNING", batching=Batching(max_records=1), retry=Retry(initial=0.1))
    async with Pipeline(sink, level="INFO") as pipeline:
        logger.info("not for this sink")
        logger.warning("the disk is almost full")
        logger.error("the poison is out")
        logger.error("the disk is full")
    counts = pipeline.stats().sinks["WebhookSink"]
    print(f"{counts.delivered} delivered, {counts.lost} refused, {counts.pending} waiting")


@asynccontextmanager
async def receiver() -> AsyncIterator[str]:
    """Somebody to post to."""
    answers = iter([503])

    async def take(request: web.Request) -> web.Response:
        (record,) = await request.json()
        status = next(answers, 400 if "poison" in record["message"] else 200)
        print(f"receiver: {status} to {record['message']!r}")
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/log", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "localhost", 0)
    await site.start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}/log"
    finally:
        await runner.cleanup()


async def run() -> None:
    if "WEBHOOK_URL" in os.environ:
        await main(os.environ["WEBHOOK_URL"])
    else:
        async with receiver() as url:
            await main(url)


if __name__ == "__main__":
    asyncio.run(run())

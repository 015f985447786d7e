"""Does a mail server that hangs slow down the FastAPI example's answers? Latency with a healthy one and a hung one.

    python -m benchmarks.fastapi_hung_mail [--rounds 4] [--seconds 10] [--rate 100]

Each round starts `uvicorn --workers 2` on examples/fastapi_app.py anew and pays for orders at a fixed rate, each an
error to be mailed. A request's latency counts from when it was to begin, so that one which had to wait for the
client's own turn shows. Rounds with a healthy and a hung mail server take turns, and all of a kind count together. The
mail server is a process of its own; the hung one accepts connections and says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import socketserver
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import ClientConnectionError, ClientSession, TCPConnector

EXAMPLES = Path(__file__).parent.parent / "examples"
READY_SECONDS = 20.0


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def process(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A module that runs meanwhile."""
    running = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


@contextmanager
def healthy_mail() -> Iterator[int]:
    """The port of a mail server that takes everything."""
    port = free_port()
    with process("aiosmtpd", "-n", "-c", "aiosmtpd.handlers.Sink", "-l", f"127.0.0.1:{port}"):
        yield port


@contextmanager
def hung_mail() -> Iterator[int]:
    """The port of one that says nothing."""
    # The kernel accepts for it, and nobody ever answers.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening.getsockname()[1]


class Reader(socketserver.BaseRequestHandler):
    """Takes what comes."""

    def handle(self) -> None:
        """Until the peer is gone."""
        while self.request.recv(65_536):
            pass


@contextmanager
def collector() -> Iterator[int]:
    """The port of one for the logs."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Reader) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


async def ready(session: ClientSession) -> None:
    """Wait until several requests in a row were answered: both workers are up, and warm."""
    async with asyncio.timeout(READY_SECONDS):
        answered = 0
        while answered < 50:
            try:
                async with session.post("/orders/0/payment"):
                    answered += 1
            except ClientConnectionError:
                await asyncio.sleep(0.1)


async def load(session: ClientSession, rate: int, seconds: float) -> list[float]:
    """Milliseconds of each request, from its intended start."""
    loop = asyncio.get_running_loop()
    begin = loop.time() + 0.1

    async def one(number: int) -> float:
        intended = begin + number / rate
        await asyncio.sleep(intended - loop.time())
        async with session.post(f"/orders/{number}/payment") as response:
            await response.read()
        return 1e3 * (loop.time() - intended)

    return await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))


@contextmanager
def example(mail_port: int, log_port: int) -> Iterator[str]:
    """The URL of the example with these servers."""
    port = free_port()
    command = ["uvicorn", "--app-dir", str(EXAMPLES), "--workers", "2", "--port", str(port), "fastapi_app:app"]
    servers = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(mail_port),
        "LOG_HOST": "127.0.0.1",
        "LOG_PORT": str(log_port),
    }
    with process(*command, **servers):
        yield f"http://127.0.0.1:{port}"


async def measure(url: str, rate: int, seconds: float) -> list[float]:
    """Milliseconds of each request to a warm server."""
    # A connection for each request, so that either worker may get it.
    async with ClientSession(url, connector=TCPConnector(force_close=True, limit=0)) as session:
        await ready(session)
        return await load(session, rate, seconds)


def show(name: str, latencies: list[float]) -> tuple[float, float]:
    """Print a line; median and 99th percentile."""
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    p50, p99 = cuts[49], cuts[98]
    print(f"{name:<10}{len(latencies):>10}{p50:>10.2f}{p99:>10.2f}{max(latencies):>10.2f}")
    return p50, p99


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Latency of the FastAPI example, its mail server healthy and hung.")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each kind")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long a round is")
    parser.add_argument("--rate", type=int, default=100, help="requests a second")
    options = parser.parse_args()
    measured: dict[str, list[float]] = {"healthy": [], "hung": []}
    for _ in range(options.rounds):
        for name, mail in (("healthy", healthy_mail), ("hung", hung_mail)):
            with mail() as mail_port, collector() as log_port, example(mail_port, log_port) as url:
                measured[name] += asyncio.run(measure(url, options.rate, options.seconds))
    print(f"{'mail':<10}{'requests':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}")
    healthy, hung = (show(name, latencies) for name, latencies in measured.items())
    print(f"{'hung/healthy':<20}{hung[0] / healthy[0]:>10.2f}{hung[1] / healthy[1]:>10.2f}")


if __name__ == "__main__":
    main()

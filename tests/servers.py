"""Real servers for fixtures to start: rsyslogd."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

_RSYSLOG = """
global(workDirectory="{folder}" maxMessageSize="64k"{files})
module(load="imtcp"{driver})
template(name="raw" type="string" string="%rawmsg%\\n")
ruleset(name="collect") {{ action(type="omfile" file="{folder}/received" template="raw" asyncWriting="off") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="collect" supportOctetCountedFraming="on")
"""
_FILES = """
  defaultNetstreamDriverCAFile="{folder}/ca.pem"
  defaultNetstreamDriverCertFile="{folder}/server.pem"
  defaultNetstreamDriverKeyFile="{folder}/server.key\""""
_DRIVER = ' streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/certvalid"'


def require_binary(name: str) -> str:
    """The path of a server's program. Missing: the test is skipped, or fails where OFFLOOP_REQUIRE_SERVERS=1."""
    # Servers of the system are in sbin, which is not on every user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    if os.environ.get("OFFLOOP_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{name} is not installed, and OFFLOOP_REQUIRE_SERVERS=1 wants it")
    pytest.skip(f"{name} is not installed")


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a server listens, or has ended before that."""
    while process.poll() is None:
        with socket.socket() as probe:
            # A port of the ephemeral range may connect to itself.
            if probe.connect_ex(("127.0.0.1", port)) == 0 and probe.getsockname() != probe.getpeername():
                return
        time.sleep(0.01)
    pytest.fail(f"the server ended with {process.returncode} before it listened")


@dataclass
class Rsyslog:
    """A running rsyslogd that takes octet-counted and LF-framed messages over TCP."""

    port: int
    received: Path

    @property
    def messages(self) -> list[str]:
        """What it has written so far, one raw message a line."""
        return self.received.read_text().splitlines() if self.received.exists() else []


@contextmanager
def running_rsyslog(folder: Path, authority: trustme.CA | None = None) -> Iterator[Rsyslog]:
    """A rsyslogd on a free port, with a folder of its own; with an authority it wants TLS and a client certificate."""
    program = require_binary("rsyslogd")
    port = free_port()
    config = folder / "rsyslog.conf"
    files = driver = ""
    if authority is not None:
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate.private_key_pem.write_to_path(str(folder / "server.key"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        files, driver = _FILES.format(folder=folder), _DRIVER
    config.write_text(_RSYSLOG.format(folder=folder, port=port, files=files, driver=driver))
    command = [program, "-n", "-f", str(config), "-i", str(folder / "pid"), "-C"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port, process)
            yield Rsyslog(port, folder / "received")
        finally:
            process.terminate()

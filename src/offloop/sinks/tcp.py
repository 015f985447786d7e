"""Records to a collector over TCP, with or without TLS.

One connection, kept; a batch goes out as one piece. A collector says nothing back, so what can be known of its having
a record is what the kernels say to each other, and this room asks them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Unpack, get_args

from offloop.connection import Connection
from offloop.errors import ConfigError, SinkFailure, TemporaryFailure
from offloop.framing import FRAMERS, Framing, PickleFormatter
from offloop.names import Endpoint
from offloop.net import TLS, open_connection, tls_context
from offloop.policies import at_least, one_of
from offloop.sink import Batch, Sink, SinkOptions

__all__ = ["TCPSink"]

_MAX_PORT = 65_535


class TCPSink(Sink):
    r"""Records to a TCP collector, one JSON object a line unless told otherwise.

    A batch counts as delivered when the collector's kernel has acknowledged all of it (on Linux; elsewhere when the own
    kernel has taken it). A connection that breaks or is closed before that means that the whole batch is sent again: a
    record may arrive twice. What can still be lost is what a collector has acknowledged and not read when it dies or
    resets the connection, and what a proxy in between acknowledges for a collector that is gone.

    A collector must keep its side of the connection open: one that closes it is taken to be gone.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        framing: Framing = "newline",
        tls: TLS = None,
        endpoints: Iterable[tuple[str, int]] = (),
        connect_timeout: float = 5.0,
        **sink: Unpack[SinkOptions],
    ) -> None:
        r"""Describe the collector. Nothing is connected yet.

        Args:
            host: A name, or an IPv4 or IPv6 address.
            port: 1 to 65535.
            framing: Where a record ends. `"newline"`: at LF; one inside a record becomes `\n`, two characters.
                `"octet-count"`: the length in decimal comes first (RFC 6587, section 3.4.1). `"nul"`: at a NUL byte.
                `"pickle"`: what receivers of the standard `SocketHandler` read; it takes no formatter.
            tls: None: no TLS. True: the system's certificate authorities. Or an `ssl.SSLContext`, for other authorities
                and for client certificates. Certificate and host name are verified unless the context says otherwise.
            endpoints: Further collectors as (host, port), tried in order when the one in use fails. The one that last
                took a batch is tried first; there is no way back to `host` before that one fails.
            connect_timeout: Seconds that name, connection and TLS handshake may take, for each collector.
            **sink: As for every `Sink`; `send_timeout` bounds a batch.

        Raises:
            ConfigError: A value is out of its limits.
        """
        one_of("TCPSink: ", "framing", framing, get_args(Framing))
        if framing == "pickle" and sink.get("formatter") is not None:
            raise ConfigError(_NO_FORMATTER)
        at_least("TCPSink: ", "connect_timeout", connect_timeout, 0.001, "seconds")
        self.framing: Framing = framing
        self.connect_timeout = connect_timeout
        self.endpoints = tuple(_endpoint(host, port) for host, port in _pairs(host, port, endpoints))
        self._frame = FRAMERS[framing]
        self._tls = tls_context(tls)
        self._first = 0
        self._connection: Connection | None = None
        self._attempt: object = None
        super().__init__(**sink)

    def default_formatter(self) -> logging.Formatter:
        """JSON; for `framing="pickle"` what the standard `SocketHandler` sends."""
        return PickleFormatter() if self.framing == "pickle" else super().default_formatter()

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - the standard library's name
        """Change the formatter, as for any handler.

        Raises:
            ConfigError: With `framing="pickle"`, whose receivers want nothing else.
        """
        if self.framing == "pickle" and fmt is not None:
            raise ConfigError(_NO_FORMATTER)
        super().setFormatter(fmt or self.default_formatter())

    async def open(self) -> None:
        """Connect to the first collector that can be reached, beginning with the one that last took a batch.

        A connection that was open is dropped. On cancellation nothing stays open, and the next call begins with the
        next collector.

        Raises:
            TemporaryFailure: None could be reached.
            SinkFailure: None could be reached, and with each it was the certificate.
        """
        self._drop(self._connection)
        attempt = self._attempt = object()
        failures: list[Exception] = []
        for _ in self.endpoints:
            position = self._first
            # Moved on before it is tried: one that hangs or takes connections and no records is not tried for ever.
            self._first = (position + 1) % len(self.endpoints)
            try:
                connection = await open_connection(
                    self.endpoints[position], tls=self._tls, connect_timeout=self.connect_timeout
                )
            except (OSError, SinkFailure) as error:
                failures.append(error)
            else:
                return self._take(connection, attempt)
        message = "; ".join(map(_told, failures))
        kind = SinkFailure if all(isinstance(error, SinkFailure) for error in failures) else TemporaryFailure
        raise kind(message) from failures[0]

    async def send(self, batch: Batch) -> None:
        """Hand the batch to the collector as one piece; connects first if there is no connection or it was closed.

        Returns when the collector's kernel has acknowledged all of it (see the class). On cancellation some of it may
        have arrived, and the connection is gone.

        Raises:
            TemporaryFailure: The connection broke, or `send_timeout` seconds passed.
            SinkFailure: A certificate was not accepted.
        """
        if self._connection is None or self._connection.closed:
            await self.open()
        connection = self._connection
        assert connection is not None  # noqa: S101 - open made one, or raised
        try:
            data = batch.lines if self.framing == "newline" else self._frame(batch.encoded)
            await connection.send_all(data, timeout=self.send_timeout)
        except OSError as error:
            raise TemporaryFailure(_told(error)) from error
        finally:
            if connection.closed:
                self._drop(connection)
        self._first = self.endpoints.index(connection.endpoint)

    async def aclose(self) -> None:
        """Close the connection, and wait at most half a second for the collector to do the same. Idempotent."""
        self._attempt = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    def _take(self, connection: Connection, attempt: object) -> None:
        if self._attempt is not attempt:
            connection.abort()
            message = f"{connection.endpoint}: connected too late, another attempt took over"
            raise TemporaryFailure(message)
        self._connection = connection

    def _drop(self, connection: Connection | None) -> None:
        """Abort a connection; forget it, unless a newer one has taken its place."""
        if connection is not None:
            connection.abort()
            if self._connection is connection:
                self._connection = None

    def __repr__(self) -> str:
        connection = self._connection
        if connection is None or connection.closed:
            return f"<{type(self).__name__} {self.endpoints[self._first]} not connected>"
        return f"<{type(self).__name__} {connection.endpoint} connected>"


_NO_FORMATTER = 'TCPSink: framing="pickle" sends the record itself: leave the formatter out, or choose another framing'


def _pairs(host: str, port: int, endpoints: Iterable[tuple[str, int]]) -> Sequence[tuple[Any, Any]]:
    try:
        return [(host, port), *((one, other) for one, other in endpoints)]
    except (TypeError, ValueError) as error:
        message = f"TCPSink: endpoints must be (host, port) pairs, got {endpoints!r}"
        raise ConfigError(message) from error


def _endpoint(host: Any, port: Any) -> Endpoint:
    if not isinstance(host, str) or not host.strip(".") or host[0] == "." or not host.isprintable() or " " in host:
        message = f"TCPSink: host must be a name or an address, got {host!r}"
        raise ConfigError(message)
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _MAX_PORT:
        message = f"TCPSink: port must be an integer from 1 to {_MAX_PORT}, got {port!r}"
        raise ConfigError(message)
    return Endpoint(host, port)


def _told(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

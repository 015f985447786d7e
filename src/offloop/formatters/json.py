"""Records as JSON objects."""

from __future__ import annotations

import logging

import msgspec

from offloop.capture import extras, message_of

__all__ = ["JSONFormatter"]


class JSONFormatter(logging.Formatter):
    """One JSON object a record."""

    def encode(self, record: logging.LogRecord) -> bytes:
        """The record as UTF-8 JSON."""
        return msgspec.json.encode(
            {
                "time": record.created,
                "level": record.levelname,
                "logger": record.name,
                "message": message_of(record),
                **extras(record),
            },
            enc_hook=str,
        )

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text."""
        return self.encode(record).decode()

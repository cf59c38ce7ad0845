"""Logs to stderr, each message a line of text or a JSON object."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from server.telemetry.request_record import CURRENT, RequestRecord

_OURS = ("server", "steering", "mapping_cache", "demo")


def setup_logging(*, level: str, as_json: bool) -> None:
    """Send the project's messages from `level` on, and the libraries' warnings and errors, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """A JSON object a line: time, level, logger, message, and the fields of the request."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        content: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content)


class TextFormatter(logging.Formatter):
    """Time, level and message, then the fields of the request as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, followed by its traceback, if any."""
        known = {name: value for name, value in _fields(record).items() if name not in _IN_ACCESS_MESSAGE}
        pairs = "".join(f" {name}={value}" for name, value in known.items())
        line = f"{_time(record)} {record.levelname.lower()} {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


_IN_ACCESS_MESSAGE = ("method", "path", "status")
"""The fields that the access log's message already contains."""


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _fields(record: logging.LogRecord) -> dict[str, str | int | float]:
    """A finished request's whole record; during a request its id; otherwise nothing."""
    whole = getattr(record, "record", None)
    if isinstance(whole, RequestRecord):
        return whole.as_fields()
    current = CURRENT.get()
    return {} if current is None else {"request_id": current.request_id}

"""Logs to stderr: a line of text, or one JSON object, a message."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from server.telemetry.request_record import CURRENT, RequestRecord

_OURS = ("server", "steering", "mapping_cache", "demo")


def setup_logging(*, level: str, as_json: bool) -> None:
    """Sends every message to stderr: ours from `level` on, the libraries' from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and what is known of the request."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
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
    """Time, level and message, then what is known of the request as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback where there is one."""
        known = {name: value for name, value in _fields(record).items() if name not in _SAID}
        pairs = "".join(f" {name}={value}" for name, value in known.items())
        line = f"{_time(record)} {record.levelname.lower()} {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


_SAID = ("method", "path", "status")
"""What the message of the access log says already."""


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _fields(record: logging.LogRecord) -> dict[str, str | int | float]:
    whole = getattr(record, "record", None)
    if isinstance(whole, RequestRecord):
        return whole.as_fields()
    current = CURRENT.get()
    return {} if current is None else {"request_id": current.request_id}

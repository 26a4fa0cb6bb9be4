"""How a log line looks: as text for people, as JSON for machines.

`logs` installs these for a worker; they format any record, and show its extra fields.
"""

import json
import logging
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

OURS = "forge_jobs"
"""The logger whose lines need not say where they come from."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in record.__dict__.items() if name not in _STANDARD]


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the record's extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line = line | dict(_extra(record)) | line  # a fact of the same name gives way
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=readable).decode()
        except (TypeError, ValueError):
            # Keys that are no strings, or half a surrogate pair: a line in some form beats none.
            return json.dumps(line, default=str, skipkeys=True)


class TextFormatter(logging.Formatter):
    """Time, level, sentence, key=value. What has more lines (a traceback) follows indented."""

    _UNSAID = frozenset({"event", "error"})  # the sentence says it

    def format(self, record: logging.LogRecord) -> str:
        message, *rest = record.getMessage().splitlines() or [""]
        if record.name != OURS:
            message = f"{record.name}: {message}"
        facts = [f"{name}={_quoted(value)}" for name, value in _extra(record) if name not in self._UNSAID]
        line = _visible(
            f"{_moment(record)} {record.levelname:<7} {message}{'  ' if facts else ''}{' '.join(facts)}"
        )
        error = getattr(record, "error", None)
        if isinstance(error, str):
            rest += error.splitlines()[1:]
        if record.exc_info:
            rest += self.formatException(record.exc_info).splitlines()
        # Indented, so that no text from outside can look like a line of its own.
        return "\n".join([line, *("    " + _visible(each) for each in rest)])


def _visible(line: str) -> str:
    """Return the line with control characters and lone surrogates spelled out."""
    if line.isprintable():
        return line
    line = re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", line)
    return line.encode("utf-8", "backslashreplace").decode()


_PLAIN = re.compile(r"[^\s\"=]+")


def _quoted(value: Any) -> str:
    text = readable(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def readable(value: Any) -> str:
    """Return a value as people read it: at most three decimals, at most ten of a list."""
    match value:
        case str():
            return value
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:g}"
        case list() | tuple():
            shown = [readable(item) for item in value[:10]]
            return ",".join(shown) + (f",… ({len(value)})" if len(value) > 10 else "")
        case datetime():
            return value.isoformat()
        case BaseException():
            return f"{type(value).__name__}: {value}"
        case _:
            return str(value)


def summary(error: str) -> str:
    """Return the error's first line, or its last when it is a traceback."""
    lines = [line.strip() for line in error.splitlines() if line.strip()] or [""]
    return lines[-1] if lines[0].startswith("Traceback ") else lines[0]

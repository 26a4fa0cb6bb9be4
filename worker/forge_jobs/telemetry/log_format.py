"""How a log line looks: as text for people, as JSON for machines.

`logs` installs these for a worker; they format any record, and show its extra fields.
"""

import itertools
import json
import logging
import math
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

OURS = "forge_jobs"
"""The logger whose lines need not say where they come from."""

LONGEST_TEXT = 16_000  # characters
LONGEST_JSON = 64_000  # bytes of a line; the texts of a longer one are cut
MOST_ITEMS = 1000  # of a list or an object
DEEPEST = 6  # levels of it

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _extra(record: logging.LogRecord) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in record.__dict__.items() if name not in _STANDARD]


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the record's extra fields.

    Whatever a record holds, its line is valid JSON. A fact whose name is one of ours has an
    underscore behind it; what JSON does not know is there as text, and what is too long is cut.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        for name, value in _extra(record):
            line[name if name not in line else f"{name}_"] = value if type(value) is str else _plain(value)
        try:
            text = msgspec.json.encode(line)
            if len(text) <= LONGEST_JSON:
                return _one_line(text.decode())
        except ValueError:  # half a surrogate pair
            pass
        return _one_line(json.dumps(_plain(line), ensure_ascii=False))


class TextFormatter(logging.Formatter):
    """Time, level, sentence, key=value. What has more lines (a traceback) follows indented."""

    _UNSAID = frozenset({"event", "error", "where", "is_first"})  # the sentence says it

    def format(self, record: logging.LogRecord) -> str:
        message, *rest = _message(record).splitlines() or [""]
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
        if record.stack_info:
            rest += record.stack_info.splitlines()
        # Indented, so that no text from outside can look like a line of its own.
        return "\n".join([line, *("    " + _visible(text) for text in rest)])


def _message(record: logging.LogRecord) -> str:
    """Return what the record says, also when its arguments do not fit or cannot be printed."""
    try:
        message = record.getMessage()
    except Exception:
        message = " ".join(readable(part) for part in (record.msg, *_as_tuple(record.args)))
    return _cut(message, LONGEST_TEXT)


def _as_tuple(args: Any) -> tuple[Any, ...]:
    return args if isinstance(args, tuple) else (args,)


def _plain(value: Any, depth: int = 0) -> Any:
    """Return what any JSON knows for any value."""
    match value:
        case None | bool():
            return value
        case int():
            return value if abs(value) < 2**63 else readable(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case dict() if depth < DEEPEST:
            plain: dict[str, Any] = {}
            for key, item in itertools.islice(value.items(), MOST_ITEMS):
                name = _text(readable(key))
                while name in plain:  # two keys that are the same as text
                    name += "_"
                plain[name] = _plain(item, depth + 1)
            return plain
        case list() | tuple() | set() | frozenset() if depth < DEEPEST:
            return [_plain(item, depth + 1) for item in itertools.islice(value, MOST_ITEMS)]
        case _:
            return _text(readable(value))


def _text(text: str) -> str:
    return _cut(text, LONGEST_TEXT).encode("utf-8", "backslashreplace").decode()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _one_line(text: str) -> str:
    """Return the JSON without what some readers of lines take for the end of one."""
    return text if text.isascii() else text.translate(_LINE_ENDS)


_LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def _visible(line: str) -> str:
    """Return the line with control characters and lone surrogates spelled out."""
    if line.isprintable():
        return line
    line = re.sub(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", line)
    return line.encode("utf-8", "backslashreplace").decode()


_PLAIN = re.compile(r"[^\s\"=]+")


def _quoted(value: Any) -> str:
    text = readable(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def readable(value: Any) -> str:
    """Return a value as people read it: at most three decimals, at most ten of a list. Never raises."""
    try:
        return _readable(value)
    except Exception as error:  # a class of the program's may do anything when it is printed
        return f"<{type(value).__name__} that cannot be printed: {type(error).__name__}>"


def _readable(value: Any) -> str:
    match value:
        case str():
            return value
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 1e15 else f"{value:g}"
        case list() | tuple():
            shown = [readable(item) for item in value[:10]]
            return (",".join(shown) or "none") + (f",… ({len(value)})" if len(value) > 10 else "")
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

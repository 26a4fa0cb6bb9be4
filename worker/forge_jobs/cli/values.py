"""How the values of options are read and shown: durations, attempts, moments, payloads."""

import json
import math
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from forge_jobs.client.queues import MAX_CONCURRENCY
from forge_jobs.errors import InvalidInput
from forge_jobs.model.group import MOST_PLACES
from forge_jobs.model.job import FOREVER, KEY_MODES, KeyMode
from forge_jobs.rules.checks import MAX_INTEGER, Choice, choice
from forge_jobs.rules.duration import in_words, parse_duration
from forge_jobs.rules.operations import MOST_A_SECOND

WHOLE = re.compile(r"-?[0-9]{1,19}")


def duration(name: str, *, least: timedelta = timedelta(0)) -> Callable[[object], timedelta]:
    """Return what reads '90s', '5m', '2h', '7d' or seconds, and raises InvalidInput naming `name`."""

    def read(value: object) -> timedelta:
        duration = value if isinstance(value, timedelta) else parse_duration(str(value), name)
        if duration < least:
            raise InvalidInput(f"{name} is {str(value)!r}, allowed is {in_words(least)} or more.")
        return duration

    return read


def whole(name: str, *, least: int = 0, most: int = MAX_INTEGER) -> Callable[[object], int]:
    """Return what reads a whole number from `least` to `most`, and raises InvalidInput naming `name`."""

    def read(value: object) -> int:
        text = str(value)
        if WHOLE.fullmatch(text) and least <= int(text) <= most:
            return int(text)
        raise InvalidInput(f"{name} is {text!r}, allowed is a whole number from {least:,} to {most:,}.")

    return read


SIZES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?)\s*([a-z]*)", re.ASCII)
SMALLEST_SIZE = 2**20


def size(name: str) -> Callable[[object], int]:
    """Return what reads a size in memory as bytes, and raises InvalidInput naming `name`."""

    def read(value: object) -> int:
        match = SIZE.fullmatch(str(value).strip().lower())
        read = float(match[1]) * SIZES.get(match[2], 0) if match else 0
        if read < SMALLEST_SIZE:
            raise InvalidInput(f"{name} is {str(value)!r}, allowed is 1MiB or more, like 512MiB or 2GiB.")
        return int(read)

    return read


def number(name: str, *, least: float = 0) -> Callable[[object], float]:
    """Return what reads a number of `least` or more, and raises InvalidInput naming `name`."""

    def read(value: object) -> float:
        with suppress(ValueError):
            number = float(str(value))
            if math.isfinite(number) and number >= least:
                return number
        raise InvalidInput(f"{name} is {str(value)!r}, allowed is a number of {least:g} or more.")

    return read


def one_of(name: str, choices: type[Choice]) -> Callable[[object], Choice]:
    """Return what reads a member of `choices`, in any case, and raises InvalidInput naming `name`."""

    def read(value: object) -> Choice:
        said = str(value)
        return choice(said.lower() if said.lower() in list(choices) else said, name, choices)

    read.choices = [one.value for one in choices]  # type: ignore[attr-defined]  # for completion
    return read


def key_mode(text: object) -> KeyMode:
    """Return what becomes of a job when another one has its key. Raises InvalidInput."""
    if str(text) in KEY_MODES:
        return KeyMode(str(text))
    raise InvalidInput(f"--key-mode is {str(text)!r}, allowed is one of {', '.join(KEY_MODES)}.")


def attempts(text: str, name: str = "--max-attempts") -> int | None:
    """Return a number of attempts, None for 'forever'. Raises InvalidInput."""
    if text.lower() == "forever":
        return None
    if WHOLE.fullmatch(text) and 1 <= int(text) <= MAX_INTEGER:
        return int(text)
    raise InvalidInput(
        f"{name} is {text!r}, allowed is a whole number from 1 to {MAX_INTEGER:,}, or forever."
    )


def rate(name: str) -> Callable[[object], float]:
    """Return what reads a number of jobs per second, and raises InvalidInput naming `name`."""

    def read(value: object) -> float:
        with suppress(ValueError):
            number = float(str(value))
            if 0 < number <= MOST_A_SECOND:
                return number
        raise InvalidInput(
            f"{name} is {str(value)!r}, allowed is more than 0 and up to {MOST_A_SECOND:,.0f}."
        )

    return read


def concurrency(text: str, name: str = "--concurrency") -> int | None:
    """Return a number of jobs, None for 'none'. Raises InvalidInput."""
    if text.lower() == "none":
        return None
    if WHOLE.fullmatch(text) and 0 <= int(text) <= MAX_CONCURRENCY:
        return int(text)
    raise InvalidInput(
        f"{name} is {text!r}, allowed is a whole number from 0 to {MAX_CONCURRENCY:,}, or none for no limit."
    )


def group_limit(text: str, name: str = "--group-limit") -> int | None:
    """Return a limit of groups, None for 'none'. Raises InvalidInput."""
    if text.lower() == "none":
        return None
    if WHOLE.fullmatch(text) and 1 <= int(text) <= MOST_PLACES:
        return int(text)
    raise InvalidInput(
        f"{name} is {text!r}, allowed is a whole number from 1 to {MOST_PLACES:,}, or none for 1."
    )


def timeout(text: str, name: str = "--timeout") -> timedelta | None:
    """Return a duration of more than zero, None for 'none'. Raises InvalidInput."""
    if text.lower() == "none":
        return None
    limit = parse_duration(text, name)
    if not limit:
        raise InvalidInput(f"{name} is {text!r}, allowed is more than 0 s, or none for no limit.")
    return limit


def age_after(text: str, name: str = "--age-after") -> timedelta | None:
    """Return a duration, None for 'none'. Raises InvalidInput."""
    return None if text.lower() == "none" else parse_duration(text, name)


def parse_moment(text: str, option: str = "--run-at") -> datetime:
    """Return the moment that ISO 8601 text names; without a zone it is UTC. Raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{option} is {text!r}, allowed is a date and time like 2026-01-31T08:00:00Z or 2026-01-31T08:00:00+02:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def limit(text: str, option: str) -> datetime | timedelta:
    """Return the moment, or the duration, that a time limit is given as. Raises InvalidInput."""
    with suppress(InvalidInput):
        return parse_duration(text, option)
    with suppress(InvalidInput):
        return parse_moment(text, option)
    raise InvalidInput(
        f"{option} is {text!r}, allowed is a duration like 90s, 5m or 2h, or a date and time like 2026-01-31T08:00:00Z."
    )


def payload(text: str | None, name: str = "The payload") -> dict[str, Any] | list[Any]:
    """Return the JSON object or array that `text` is, {} for none. Raises InvalidInput."""
    value = _json(text, name)
    if not isinstance(value, dict | list):
        raise InvalidInput(f"{name} is {shortened(text or '')}, allowed is {_OBJECT}, or an array of items.")
    return value


def payloads(file: str, name: str) -> list[dict[str, Any] | list[Any]]:
    """Return what the lines of a file say, each a JSON object or array; empty ones say nothing. Raises InvalidInput."""
    lines = content(file, name).split("\n")
    said = [payload(line, f"Line {number} of {name}") for number, line in enumerate(lines, 1) if line.strip()]
    if not said:
        raise InvalidInput(f"{name} is {file!r}, which has no lines, allowed is a JSON object in each line.")
    return said


_OBJECT = 'a JSON object like \'{"to": "a@b"}\''


def any_json(text: str, name: str) -> Any:
    """Return what the JSON `text` says. Raises InvalidInput."""
    return _json(text, name)


def _json(text: str | None, name: str) -> Any:
    if text is None:
        return {}
    try:
        said = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
        if "\\ud" in text.lower():
            json.dumps(said, ensure_ascii=False).encode()
        return said
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise InvalidInput(f"{name} has {half!r}, which is half of a character, allowed is text.") from None
    except ValueError as error:
        raise InvalidInput(
            f'{name} is not JSON ({error}), allowed is an object like \'{{"to": "a@b"}}\'.'
        ) from None
    except RecursionError:
        raise InvalidInput(f"{name} is nested too deeply.") from None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number there")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return made


def shown_attempts(attempt: int, most: int) -> str:
    """Return '2/5', or '2' when there is no end."""
    return str(attempt) if most == FOREVER else f"{attempt}/{most}"


def shown_most(most: int | None) -> str:
    """Return a max_attempts for people."""
    return "forever" if most == FOREVER else "queue's" if most is None else str(most)


def since(when: datetime | None, now: datetime) -> str:
    """Return how long ago a moment was, '-' for none."""
    return "-" if when is None else in_words(max(now - when, timedelta(0)))


def until(when: datetime | None, now: datetime) -> str:
    """Return 'in 5 min', 'now' when it is over, '-' for none."""
    if when is None:
        return "-"
    return f"in {in_words(when - now)}" if when > now else "now"


def shown_number(number: float) -> str:
    """Return '1,500' or '0.25'."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.3g}"


def shortened(text: str, most: int = 60) -> str:
    """Return at most that many characters, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def text(payload: str | None, file: str | None) -> str | None:
    """Return the payload that is given, or that of a file, - being stdin; None: neither is given. Raises InvalidInput."""
    if payload is not None and file is not None:
        raise InvalidInput("The payload is given twice, allowed is the argument or --payload-file.")
    return payload if file is None else content(file, "--payload-file")


def content(file: str, name: str) -> str:
    """Return the text of a file, - being stdin. Raises InvalidInput, naming `name`."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"{name} is {file!r}, which cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name} is {file!r}, which is not UTF-8 text.") from error

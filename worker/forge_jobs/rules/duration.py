"""Durations as people write and read them: '90s' in, '1 min 30 s' out."""

import math
import re
from datetime import timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.moments import LONGEST

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.ASCII)
NUMBER = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


def parse_duration(text: str, name: str = "the duration") -> timedelta:
    """Return what '90s', '5m', '2h', '7d', '1h30m', '250ms' or '90' (seconds) says.

    Raises InvalidInput, naming `name`.
    """
    wanted = text.strip().lower()
    seconds = float(wanted) if NUMBER.fullmatch(wanted) else _sum_of_parts(wanted)
    if seconds is None or not math.isfinite(seconds) or seconds > LONGEST.total_seconds():
        raise InvalidInput(
            f"{name} is {text!r}, allowed are seconds, or numbers with ms, s, m, h, d or w, like 90s, 5m, 1h30m or 7d."
        )
    return timedelta(seconds=seconds)


def _sum_of_parts(text: str) -> float | None:
    if not text or PART.sub("", text).strip():
        return None
    parts = PART.findall(text)
    if any(unit not in SECONDS for _, unit in parts):
        return None
    return math.fsum(float(number) * SECONDS[unit] for number, unit in parts)


def checked_duration(value: object, name: str) -> timedelta:
    """Return `value` (a timedelta, or seconds) as a timedelta of zero or more. Raises InvalidInput."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
        raise InvalidInput(f"{name} is {value!r}, allowed is a timedelta or a number of seconds.")
    if not 0 <= seconds <= LONGEST.total_seconds():
        raise InvalidInput(f"{name} is {in_words_or_number(value)}, allowed is 0 s to {LONGEST.days} d.")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def in_words(duration: timedelta) -> str:
    """Return the duration in its two largest units, rounded: '3 d 4 h', '1 min 30 s', '1.2 s', '35 ms'."""
    seconds = abs(duration.total_seconds())
    if round(seconds, 3) < 1:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return _two(minutes, "min", rest, "s")
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 24:
        return _two(hours, "h", minutes, "min")
    days, hours = divmod(round(seconds / 3600), 24)
    return _two(days, "d", hours, "h")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def in_words_or_number(value: object) -> str:
    """Return a duration as given by a user, for a message."""
    if isinstance(value, timedelta):
        return ("-" if value < timedelta(0) else "") + in_words(value)
    return repr(value)

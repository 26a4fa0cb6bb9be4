"""How the values of options are read and shown: durations, attempts, moments, payloads."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from forge_jobs.client.duration import in_words, parse_duration
from forge_jobs.errors import InvalidInput
from forge_jobs.job import FOREVER


def duration(text: str | None, option: str) -> timedelta | None:
    """Return what '90s', '5m', '2h', '7d' or seconds say. Raises InvalidInput."""
    return None if text is None else parse_duration(text, option)


def attempts(text: str, option: str = "--max-attempts") -> int | None:
    """Return a number of attempts, None for 'forever'. Raises InvalidInput."""
    if text.lower() == "forever":
        return None
    number = whole(text, option, "a whole number of 1 or more, or forever")
    if number < 1:
        raise InvalidInput(f"{option} is {text!r}, allowed is a whole number of 1 or more, or forever.")
    return number


def concurrency(text: str, option: str = "--concurrency") -> int | None:
    """Return a number of jobs, None for 'none'. Raises InvalidInput."""
    return None if text.lower() == "none" else whole(text, option, "a whole number, or none for no limit")


def whole(text: str, option: str, allowed: str) -> int:
    """Return the whole number. Raises InvalidInput."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InvalidInput(f"{option} is {text!r}, allowed is {allowed}.")
    return int(text)


def moment(text: str, option: str = "--run-at") -> datetime:
    """Return the moment that ISO 8601 text names; without a zone it is UTC. Raises InvalidInput."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{option} is {text!r}, allowed is a date and time like 2026-01-31T08:00:00Z or 2026-01-31T08:00:00+02:00."
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def payload(text: str | None, name: str = "The payload") -> dict[str, Any]:
    """Return the JSON object that `text` is, {} for none. Raises InvalidInput."""
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InvalidInput(
            f'{name} is not JSON ({error}), allowed is an object like \'{{"to": "a@b"}}\'.'
        ) from None
    except RecursionError:
        raise InvalidInput(f"{name} is nested too deeply.") from None
    if not isinstance(found, dict):
        raise InvalidInput(f'{name} is {shortened(text)}, allowed is a JSON object like \'{{"to": "a@b"}}\'.')
    return found


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

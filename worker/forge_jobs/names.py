"""What people may call things: queues, kinds, keys, rate limits and crons, and the numbers of a job.

Each function returns the value that it was given, or raises InvalidInput with one
sentence that names what was given and what is allowed.
"""

import re

from forge_jobs.errors import InvalidInput
from forge_jobs.job import FOREVER, MAX_KEY, MAX_NAME

_PLAIN = re.compile(r"[!-+\--~]{1,128}")  # every printable ASCII character but the space and the comma

MAX_LINE = 500
SMALLEST_PRIORITY, LARGEST_PRIORITY = -32_768, 32_767
MOST_ATTEMPTS = 2_147_483_647


def checked_name(value: object, what: str) -> str:
    """Return the name of a `what`: 1 to 128 printable characters, no spaces, no commas."""
    if isinstance(value, str) and (_PLAIN.fullmatch(value) or _is_name(value)):
        return value
    raise InvalidInput(
        f"The {what} is {_shown(value)}, allowed are 1 to {MAX_NAME} printable characters without spaces and commas."
    )


def queue(value: object) -> str:
    """Return the name of a queue."""
    return checked_name(value, "queue")


def kind(value: object) -> str:
    """Return the kind of a job."""
    return checked_name(value, "kind")


def queues(text: str) -> tuple[str, ...]:
    """Return the names of queues in a comma-separated list, each once, in their order."""
    return tuple(dict.fromkeys(queue(name.strip()) for name in text.split(",")))


def key(value: object) -> str:
    """Return the key of a job: 1 to 512 characters of text."""
    if isinstance(value, str) and 0 < len(value) <= MAX_KEY and "\0" not in value and _is_text(value):
        return value
    raise InvalidInput(f"The key is {_shown(value)}, allowed are 1 to {MAX_KEY} characters of text.")


def line(value: object, what: str) -> str:
    """Return a `what` for people: 1 to 500 characters of text on one line."""
    if isinstance(value, str) and 0 < len(value) <= MAX_LINE and value.isprintable():
        return value
    raise InvalidInput(f"{what} is {_shown(value)}, allowed are 1 to {MAX_LINE} printable characters.")


def priority(value: object) -> int:
    """Return the priority of a job, a smallint; smaller runs first."""
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and SMALLEST_PRIORITY <= value <= LARGEST_PRIORITY
    ):
        return value
    raise InvalidInput(
        f"The priority is {_shown(value)}, allowed is a whole number from {SMALLEST_PRIORITY} to {LARGEST_PRIORITY}."
    )


def max_attempts(value: object) -> int:
    """Return how many attempts a job has, as it is stored: FOREVER (0) for None."""
    if value is None:
        return FOREVER
    if isinstance(value, int) and not isinstance(value, bool) and FOREVER <= value <= MOST_ATTEMPTS:
        return value
    raise InvalidInput(
        f"max_attempts is {_shown(value)}, allowed is a whole number from 1 to {MOST_ATTEMPTS}, or None (0) for ever."
    )


def _is_name(value: str) -> bool:
    return 0 < len(value) <= MAX_NAME and value.isprintable() and not set(value) & {" ", ","}


def _is_text(value: str) -> bool:
    """Whether a database can hold `value`: half of a surrogate pair is no text."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 200 else f"{shown[:200]}… ({len(shown):,} characters)"

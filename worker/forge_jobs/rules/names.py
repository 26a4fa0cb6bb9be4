"""What people may call things: queues, kinds, keys, rate limits and crons, and the numbers of a job.

Each function returns the value that it was given, or raises InvalidInput with one
sentence that names what was given and what is allowed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forge_jobs.errors import InvalidInput
from forge_jobs.model.job import FOREVER, KEY_MODES, MAX_KEY, MAX_NAME, MAX_TAG, MOST_TAGS, Enqueued, KeyMode
from forge_jobs.model.kind import OnLost
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.signal import MOST_NAMES

LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""What a worker's label may be made of."""

LABEL_PART_ALLOWED = "1 to 63 characters of a-z, A-Z, 0-9, ., _ and -, a letter or digit first and last"

POOL = re.compile(r"[A-Za-z0-9._-]{1,128}")
"""What the uid of a pool may be."""

POOL_ALLOWED = "1 to 128 characters of a-z, A-Z, 0-9, ., _ and -"

VERSION_ID = re.compile(r"[a-z0-9]{8}")
"""What the id of a version may be."""

VERSION_ID_ALLOWED = "8 characters of a-z and 0-9"

_PLAIN = re.compile(r"[!-+\--~]{1,128}")  # every printable ASCII character but the space and the comma

MAX_LINE = 500
SMALLEST_PRIORITY, LARGEST_PRIORITY = -32_768, 32_767
MOST_ATTEMPTS = 2_147_483_647
LARGEST_ID = 9_223_372_036_854_775_807


def checked_name(value: object, what: str) -> str:
    """Return the name of a `what`: 1 to 128 printable characters, no spaces, no commas."""
    if isinstance(value, str) and (_PLAIN.fullmatch(value) or _is_name(value)):
        return value
    raise InvalidInput(
        f"The {what} is {shown(value)}, allowed are 1 to {MAX_NAME} printable characters without spaces and commas."
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


def listed(value: object, name: str) -> Sequence[Any]:
    """Return the items of a list or another collection. A text is refused, since its letters would be taken
    for names."""
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray | memoryview | Mapping):
        return list(value)
    raise InvalidInput(f"{name} is {shown(value)}, allowed is a list.")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return which of the `known` names may have been meant by `name`; None when it resembles none."""
    import difflib  # late: few names are wrong

    return next(iter(difflib.get_close_matches(name, sorted(set(known) - {name}), n=1, cutoff=0.7)), None)


def key(value: object) -> str:
    """Return the key of a job: 1 to 512 characters of text."""
    if isinstance(value, str) and 0 < len(value) <= MAX_KEY and "\0" not in value and is_text(value):
        return value
    raise InvalidInput(f"The key is {shown(value)}, allowed are 1 to {MAX_KEY} characters of text.")


def key_mode(value: object) -> KeyMode:
    """Return what becomes of a job when another one has its key."""
    if isinstance(value, str) and value in KEY_MODES:
        return KeyMode(value)
    raise InvalidInput(f"key_mode is {shown(value)}, allowed is one of {', '.join(KEY_MODES)}.")


def on_lost(value: object) -> OnLost:
    """Return what becomes of a job whose worker was lost."""
    if isinstance(value, str) and value in tuple(OnLost):
        return OnLost(value)
    raise InvalidInput(f"on_lost is {shown(value)}, allowed is one of {', '.join(OnLost)}.")


def pin(value: object, of_kind: str) -> bool:
    """Return whether jobs of the kind are pinned to the version of the program that begins them."""
    if value not in (None, "version"):
        raise InvalidInput(f"pin of handler {of_kind!r} is {shown(value)}, allowed is 'version', or None.")
    return value is not None


def tags(value: object) -> tuple[str, ...]:
    """Return the tags of a job, or those to look for, each once: at most 10 of 1 to 64 printable characters."""
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise InvalidInput(f"tags is {shown(value)}, allowed is a list.")
    found = tuple(dict.fromkeys(tag(one) for one in value))
    if len(found) > MOST_TAGS:
        raise InvalidInput(f"{len(found)} tags are given, allowed are at most {MOST_TAGS}.")
    return found


def tag(value: object) -> str:
    """Return one tag."""
    if isinstance(value, str) and 0 < len(value) <= MAX_TAG and value.isprintable():
        return value
    raise InvalidInput(f"A tag is {shown(value)}, allowed are 1 to {MAX_TAG} printable characters.")


def step(value: object) -> str:
    """Return the name of a step: 1 to 128 printable characters."""
    if isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable():
        return value
    raise InvalidInput(
        f"The name of a step is {shown(value)}, allowed are 1 to {MAX_NAME} printable characters."
    )


def signal(value: object) -> str:
    """Return the name of a signal: 1 to 128 printable characters."""
    if isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable():
        return value
    raise InvalidInput(
        f"The name of a signal is {shown(value)}, allowed are 1 to {MAX_NAME} printable characters."
    )


def signals(values: Sequence[object], what: str) -> tuple[str, ...]:
    """Return the names of the signals that `what` waits for, each once."""
    found = tuple(dict.fromkeys(signal(value) for value in values))
    if not 1 <= len(found) <= MOST_NAMES:
        raise InvalidInput(f"{what} is given {len(found)} signals, allowed are 1 to {MOST_NAMES}.")
    return found


def line(value: object, what: str) -> str:
    """Return a `what` for people: 1 to 500 characters of text on one line."""
    if isinstance(value, str) and 0 < len(value) <= MAX_LINE and value.isprintable():
        return value
    raise InvalidInput(f"{what} is {shown(value)}, allowed are 1 to {MAX_LINE} printable characters.")


def label_part(value: object, what: str) -> str:
    """Return a part of a worker's label."""
    if isinstance(value, str) and LABEL_PART.fullmatch(value):
        return value
    raise InvalidInput(f"{what} is {shown(value)}, allowed are {LABEL_PART_ALLOWED}.")


def metrics_port(value: object) -> int:
    """Return the port of /metrics: 0 for any free one, -1 for none."""
    if isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= 65_535:
        return value
    raise InvalidInput(
        f"metrics_port is {shown(value)}, allowed is a whole number from -1 (none) to 65535, 0 being any free one."
    )


def priority(value: object) -> int:
    """Return the priority of a job, a smallint; smaller runs first."""
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and SMALLEST_PRIORITY <= value <= LARGEST_PRIORITY
    ):
        return value
    raise InvalidInput(
        f"The priority is {shown(value)}, allowed is a whole number from {SMALLEST_PRIORITY} to {LARGEST_PRIORITY}."
    )


def max_attempts(value: object) -> int:
    """Return how many attempts a job has, as it is stored: FOREVER for None.

    A 0 is refused, since it could mean "no retry" as well as "for ever".
    """
    if value is None:
        return FOREVER
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_ATTEMPTS:
        return value
    raise InvalidInput(
        f"max_attempts is {shown(value)}, allowed is a whole number from 1 (no retry) to {MOST_ATTEMPTS}, "
        "or None for ever."
    )


def job_id(value: object, name: str = "The job's id") -> int:
    """Return the id of a job, given as a number or as the answer of an enqueue."""
    number = value.id if isinstance(value, Enqueued) else value
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= LARGEST_ID:
        return number
    raise InvalidInput(
        f"{name} is {shown(value)}, allowed is a whole number from 1 to {LARGEST_ID:,}, or what an enqueue returned."
    )


def closed_queue(queue: QueueConfig) -> str:
    """Return the name that a queue has while it is being deleted; a queue that is being deleted keeps it.
    `storage.closed_queues` says in SQL what its name was before.
    """
    return queue.name if is_closed(queue) else f"{_closed(queue)}{queue.name}"[:MAX_NAME]


def is_closed(queue: QueueConfig) -> bool:
    """Whether the queue is being deleted."""
    return queue.name.startswith(_closed(queue))


def _closed(queue: QueueConfig) -> str:
    return f"deleting:{queue.id}:"


def _is_name(value: str) -> bool:
    return 0 < len(value) <= MAX_NAME and value.isprintable() and not set(value) & {" ", ","}


def is_text(value: str) -> bool:
    """Whether a database can hold `value`: half of a surrogate pair is no text."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def shown(value: object) -> str:
    """Return what was given, as an error says it: not much more than 200 characters."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text):,} characters)"

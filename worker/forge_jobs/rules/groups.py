"""What may be said of the groups of a job."""

import re
from collections.abc import Iterable, Mapping

from forge_jobs.errors import InvalidInput
from forge_jobs.model.group import MOST_PLACES, Group, Overflow
from forge_jobs.model.job import MAX_NAME
from forge_jobs.rules import names

MOST_GROUPS = 8
"""In how many groups a job may be."""

_OF_UNIQUE = re.compile("unique:[0-9a-f]{32}")


def of_unique(fingerprint: bytes) -> Group:
    """Return the group of jobs that are the same, of which the latest waits until no other one runs."""
    return Group(f"unique:{fingerprint.hex()}", 1)


def is_of_unique(group: str) -> bool:
    """Whether the library has made a group of this name: `of_unique`."""
    return _OF_UNIQUE.fullmatch(group) is not None


def name(value: object) -> str:
    """Return the name of a group: 1 to 128 characters of text."""
    if isinstance(value, str) and 0 < len(value) <= MAX_NAME and "\0" not in value and names.is_text(value):
        return value
    raise InvalidInput(f"group is {names.shown(value)}, allowed are 1 to {MAX_NAME} characters.")


def limit(group: str, value: object) -> int:
    """Return how many jobs of the group may be pending or in progress at once."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_PLACES:
        return value
    raise InvalidInput(
        f"The limit of group {group!r} is {names.shown(value)}, allowed is a whole number from 1 to {MOST_PLACES}."
    )


def groups(value: object) -> tuple[Group, ...]:
    """Return the groups that a name, a Group, or a list of these means; each has a name of its own. None means none."""
    given: Iterable[object]
    if value is None:
        given = ()
    elif isinstance(value, str | Group):
        given = (value,)
    elif isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        given = value
    else:
        raise InvalidInput(f"group is {names.shown(value)}, allowed is a name, a Group, or a list of these.")
    checked = tuple(_group(one) for one in given)
    if len(checked) > MOST_GROUPS:
        raise InvalidInput(f"A job has {len(checked)} groups, allowed are at most {MOST_GROUPS}.")
    said = [group.name for group in checked]
    for one in said:
        if said.count(one) > 1:
            raise InvalidInput(f"Group {one!r} is given {said.count(one)} times, allowed is once.")
    return checked


def _group(value: object) -> Group:
    if not isinstance(value, Group):
        return Group(name(value))
    name(value.name)
    if value.limit is not None:
        limit(value.name, value.limit)
    if value.overflow not in tuple(Overflow):
        raise InvalidInput(
            f"The overflow of group {value.name!r} is {names.shown(value.overflow)}, "
            f"allowed is one of {', '.join(Overflow)}."
        )
    return value

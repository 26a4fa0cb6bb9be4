"""What a group is: jobs of which only so many at once are pending or in progress."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from forge_jobs.model.links import GROUPS

MOST_PLACES = 1000
"""The largest limit of a group."""


class Overflow(StrEnum):
    """What happens to a new job for which its group has no place."""

    WAIT = "wait"  # it is blocked until it gets one
    DROP_NEWEST = "drop_newest"  # it is not enqueued
    CANCEL_RUNNING = "cancel_running"  # it is blocked, and whatever is before it is cancelled


@dataclass(frozen=True, slots=True)
class Group:
    """A group as a job says it: `limit` is how many of its jobs may be pending or in progress at once.

    None: the limit stays what it is; that of a new group is 1.
    """

    name: str
    limit: int | None = None
    overflow: Overflow | str = Overflow.WAIT


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group as its rows say."""

    name: str
    limit: int  # that holds
    set_limit: int | None = None  # by people, stronger than what jobs say; None: not set
    occupants: int = 0  # jobs that have a place
    blocked: int = 0  # jobs that stand in its line
    paused: bool = False  # it gives no places away
    paused_until: datetime | None = None  # None: until it is resumed
    pause_reason: str | None = None  # in the words of whoever paused it


DROPPED_ERROR = "dropped: its group had no place for it"
"""The error of a scheduled job that a group drops when it is due."""


def has_groups(links: int | None) -> bool:
    """Whether a job with these `links` has groups."""
    return links is not None and bool(links & GROUPS)


def encoded(groups: Iterable[Group]) -> str | None:
    """Return groups as they are stored with a job; None when there are none."""
    rules: dict[str, dict[str, Any]] = {}
    for group in groups:
        said = {} if group.limit is None else {"limit": group.limit}
        overflow = Overflow(group.overflow)
        rules[group.name] = said | ({} if overflow is Overflow.WAIT else {"overflow": overflow.value})
    return msgspec.json.encode(rules).decode() if rules else None


def decoded(groups: str | None) -> Mapping[str, Group]:
    """Return groups as they were stored, by name."""
    rules: dict[str, dict[str, Any]] = msgspec.json.decode(groups) if groups else {}
    return {name: Group(name, **rule) for name, rule in rules.items()}

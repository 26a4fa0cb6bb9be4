"""When a version is proven to have no jobs left.

A version is empty when its gate is closed, every live worker of it has acknowledged that,
and nobody holds a job of it. One look is not enough: a claim that began just before the
gate closed may become visible after it.
"""

from datetime import datetime, timedelta

from forge_jobs.model import Version
from forge_operator.state.memory import Empty, Memory

BETWEEN_LOOKS = timedelta(seconds=10)
"""How far apart the two looks are that prove a version empty; longer than any claim takes."""


def looks_empty(version: Version) -> bool:
    """Whether the version is empty as of this look."""
    return not version.is_open and version.acknowledged and version.in_progress == 0


def evidence(versions: list[Version], memory: Memory, now: datetime) -> dict[str, Empty]:
    """Return since when all looks have found each version empty; `now` is the database's."""
    empty = {}
    for version in versions:
        if not looks_empty(version):
            continue
        before = memory.empty.get(version.id)
        goes_on = before is not None and before.control_revision == version.control_revision
        empty[version.id] = before if before is not None and goes_on else Empty(now, version.control_revision)
    return empty


def is_proven_empty(version: Version, memory: Memory, now: datetime) -> bool:
    """Whether this look and one long enough before it have found the version empty, and all between."""
    before = memory.empty.get(version.id)
    return (
        looks_empty(version)
        and before is not None
        and before.control_revision == version.control_revision
        and now - before.since >= BETWEEN_LOOKS
    )

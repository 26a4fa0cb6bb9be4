"""Which jobs a call on many of them means."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from forge_jobs.rules import groups, names


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs of one queue, of one kind, with one key, in one group, and with all of the tags; None: of any."""

    queue: str | None = None
    kind: str | None = None
    key: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether it means all jobs."""
        return self == JobFilter()

    @property
    def sought(self) -> dict[str, Any]:
        """What the storage is asked for."""
        which = {"queue": self.queue, "kind": self.kind, "key": self.key, "group": self.group}
        return {**which, "with_tags": self.tags}


def job_filter(
    queue: str | None, kind: str | None, key: str | None, group: str | None, tags: Iterable[str]
) -> JobFilter:
    """Return the filter. Raises InvalidInput when one of these cannot be what it is called."""
    return JobFilter(
        None if queue is None else names.queue(queue),
        None if kind is None else names.kind(kind),
        None if key is None else names.key(key),
        None if group is None else groups.name(group),
        names.tags(tags),
    )

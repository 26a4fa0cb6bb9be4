"""All jobs of a version go on with another one: one after the other, so that who is interrupted goes on where it was."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from forge_jobs.client.acting import who_acts
from forge_jobs.client.job_filter import JobFilter
from forge_jobs.errors import InvalidInput, JobNotFound
from forge_jobs.rules import names
from forge_jobs.storage.interface.storage import Storage


async def repinned(
    storage: Storage,
    version: str,
    to: str | None,
    which: JobFilter,
    *,
    dry_run: bool,
    progress: Callable[[int], object] | None,
) -> int:
    """Return how many jobs go on with another version, as `Jobs.repin_all` says. Raises InvalidInput."""
    name, target = names.line(version, "version"), None if to is None else names.label_part(to, "to")
    if name == target:
        raise InvalidInput(f"to is {to!r}, allowed is another version than that of the jobs.")
    pins, by, after, moved = storage.pins, who_acts(), 0, 0
    pinned = partial(pins.of_version, name, **which.sought)
    while ids := await pinned(of_pools=target is None, after=after):
        for id in () if dry_run else ids:
            with suppress(JobNotFound):  # it has gone meanwhile
                moved += await (pins.remove(id, by=by) if target is None else pins.put(id, target, by=by))
        moved += len(ids) if dry_run else 0
        after = ids[-1]
        if progress is not None:
            progress(moved)
    if target is not None and not after and await pinned(of_pools=True, limit=1):
        raise InvalidInput(
            f"Version {name!r} is run by an operator and to is {to!r}, allowed is none: any version goes on with its jobs."
        )
    return moved

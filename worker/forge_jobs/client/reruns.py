"""What a job that runs an ended one again takes over from it."""

from dataclasses import replace

from forge_jobs.errors import InvalidInput
from forge_jobs.model.group import Group
from forge_jobs.model.job import Job
from forge_jobs.model.step import StepSort
from forge_jobs.rules import names
from forge_jobs.storage.interface.storage import Storage


async def as_it_is(storage: Storage, group: Group) -> Group:
    """Return the group without the limit that an ended job said of it, unless nobody uses it: newer jobs may have said another."""
    for known in await storage.groups.all(name=group.name):
        if known.occupants or known.blocked:
            return replace(group, limit=None)
    return group


def number_of(job: Job, name: str) -> int:
    """Return the number of the step that the job has done under this name. Raises InvalidInput."""
    numbers = {step.name: step.number for step in job.steps if step.sort is not StepSort.PATCH}
    if name not in numbers:
        done = ", ".join(map(repr, numbers)) or "none"
        raise InvalidInput(
            f"Job {job.id} has not done a step {names.shown(name)}; steps that it has done: {done}."
        )
    return numbers[name]

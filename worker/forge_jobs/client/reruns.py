"""What a job that runs an ended one again takes over from it."""

import dataclasses
import sys
from collections.abc import Callable

from msgspec.structs import replace

from forge_jobs.codecs.encoded import Encoded, Payload
from forge_jobs.codecs.plain import NO_ARGUMENTS, decode, hides, innermost, wrapped
from forge_jobs.codecs.plain import encode as encode_plain
from forge_jobs.errors import InvalidInput, UnfitPayload
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Job, NewJob
from forge_jobs.model.step import StepSort
from forge_jobs.rules import names
from forge_jobs.rules.redaction import require_sealed
from forge_jobs.storage.interface.storage import Storage

Encode = Callable[[str, Payload, str], bytes]
"""Returns the payload of a job of a kind, encoded by a codec, as its handler takes it. Raises InvalidPayload."""


async def like(
    storage: Storage, job: Job, payload: Payload | None, encode: Encode | None, *, with_steps: bool
) -> NewJob:
    """Return a job that is like an ended one, with its payload or another one; sealed, if its kind is by now.

    Raises InvalidPayload; InvalidInput when it would be stored for everybody to read, or results of steps could not be read.
    """
    kinds = [kind for kind in await storage.kinds.all() if kind.kind == job.kind and kind.sealed]
    codec = kinds[0].codec if kinds and not hides(job.codec) else job.codec
    stored = job.payload if codec == job.codec or payload is not None else _sealed(job, codec)
    new = NewJob(
        job.kind,
        stored,
        codec,
        job.queue,
        job.priority,
        job.max_attempts,
        job.timeout,
        job.key,
        groups=encoded([await _as_it_is(storage, group) for group in job.groups]),
        tenant=job.tenant,
        tags=job.tags,
        rerun_of=job.id,
        declared=True,
    )
    if payload is None or encode is None:
        return new
    said = payload.codec if isinstance(payload, Encoded) else codec
    if with_steps and said != codec:
        raise InvalidInput(
            f"The payload is encoded as {said}, allowed with from_step is {codec}, as the results of the steps are."
        )
    new = replace(new, payload=encode(job.kind, payload, said), codec=said)
    require_sealed(job.kind, codec, said, new.payload, is_sealed=bool(kinds))
    return new


def _sealed(job: Job, codec: str) -> bytes:
    """Return the payload of a job that was enqueued before its kind was sealed, sealed with this codec. Raises InvalidInput."""
    if job.payload.strip() == NO_ARGUMENTS:
        return NO_ARGUMENTS
    try:
        if innermost(codec) == job.codec:
            return wrapped(job.payload, codec, of=job.kind, limit=sys.maxsize)
        return encode_plain(
            decode(job.payload, job.codec, of=job.kind), codec, of=job.kind, limit=sys.maxsize
        )
    except UnfitPayload as error:
        raise InvalidInput(
            f"Job {job.id} is {job.codec}, and jobs of kind {job.kind!r} are sealed by now; allowed is to run it again "
            f"in a program that has the codec {codec!r}."
        ) from error


async def _as_it_is(storage: Storage, group: Group) -> Group:
    """Return the group without the limit that an ended job said of it, unless nobody uses it: newer jobs may have said another."""
    for known in await storage.groups.all(name=group.name):
        if known.occupants or known.blocked:
            return dataclasses.replace(group, limit=None)
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

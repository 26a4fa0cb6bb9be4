"""What a program has enqueued, as its tests say it."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from forge_jobs.codecs.plain import decode, encode
from forge_jobs.errors import InvalidInput, InvalidPayload
from forge_jobs.forge import Forge
from forge_jobs.handlers.handler import Handler
from forge_jobs.model.job import Job

PAGE = 1_000
SHOWN = 10

FIELDS = frozenset(field.name for field in fields(Job)) - {"kind", "payload"}


async def assert_enqueued(
    forge: Forge,
    kind: str | Handler[..., Any, ..., Any],
    payload: Mapping[str, Any] | None = None,
    /,
    *,
    count: int | None = None,
    **wanted: Any,
) -> list[Job]:
    """Return the jobs of this kind, a name or a handler, that were enqueued, the first one first; raise AssertionError when there are none.

    Of their payloads, what `payload` names has to be as there, or as what it is written as; the rest may be anything. `wanted` are fields of Job that have to be so:
    `queue="mail"`, `state=State.DONE`. Without `state`, it may have run since. `count` is how many there have to be.
    Jobs of a transaction are there once it has committed. Raises InvalidInput for a field that Job does not have.
    """
    name, jobs = await _of_kind(forge, kind)
    matching = [job for job in jobs if _matches(job, payload, wanted)]
    if matching if count is None else len(matching) == count:
        return matching
    how_many = "No job" if not matching else f"{len(matching)} jobs" if len(matching) > 1 else "One job"
    expected = "" if count is None else f", expected {count}"
    raise AssertionError(
        f"{how_many} {_named(name, payload, wanted)} enqueued{expected}; {_shown(name, jobs)}"
    )


async def refute_enqueued(
    forge: Forge,
    kind: str | Handler[..., Any, ..., Any],
    payload: Mapping[str, Any] | None = None,
    /,
    **wanted: Any,
) -> None:
    """No such job was enqueued, as `assert_enqueued` says it; raise AssertionError when there is one."""
    name, jobs = await _of_kind(forge, kind)
    if matching := [job for job in jobs if _matches(job, payload, wanted)]:
        raise AssertionError(
            f"{len(matching)} {_named(name, payload, wanted)} enqueued, expected none; {_shown(name, matching)}"
        )


async def _of_kind(forge: Forge, kind: str | Handler[..., Any, ..., Any]) -> tuple[str, list[Job]]:
    name = kind if isinstance(kind, str) else kind.kind
    jobs: list[Job] = []
    while page := await forge.jobs.list(kind=name, limit=PAGE, before=jobs[-1].id if jobs else None):
        jobs += page
    return name, sorted(jobs, key=lambda job: job.id)


def _matches(job: Job, payload: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    for field in wanted:
        if field not in FIELDS:
            raise InvalidInput(
                f"A job has no field {field!r}, allowed are {', '.join(sorted(FIELDS))}; "
                "arguments of the job are given as a mapping, before its fields."
            )
    if any(getattr(job, field) != value for field, value in wanted.items()):
        return False
    if not payload:
        return True
    present = decode(job.payload, job.codec, of=job.kind)
    return isinstance(present, Mapping) and all(
        name in present and present[name] in (value, _as_written(value)) for name, value in payload.items()
    )


def _as_written(value: Any) -> Any:
    """Return what is read again when the value, perhaps a moment or a dataclass, is written down in JSON."""
    try:
        return decode(encode(value))
    except InvalidPayload:
        return value


def _named(kind: str, payload: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> str:
    says = [f"{name}={value!r}" for name, value in (*(payload or {}).items(), *wanted.items())]
    return f"of kind {kind!r}" + (f" with {', '.join(says)}" if says else "") + " was"


def _shown(kind: str, jobs: list[Job]) -> str:
    if not jobs:
        return f"there is none of kind {kind!r}."
    lines = [
        f"\n  {job.id}: {'(redacted)' if job.redacted else decode(job.payload, job.codec, of=job.kind)!r}, "
        f"queue {job.queue}, {job.state.value}"
        for job in jobs[:SHOWN]
    ]
    more = f"\n  and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
    return f"of this kind there are:{''.join(lines)}{more}"

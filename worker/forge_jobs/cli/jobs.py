"""`forge-jobs jobs`: look at jobs, cancel, retry and delete them, and ask why."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

from forge_jobs.cli import job_steps, values
from forge_jobs.cli.asking import DryRun, Yes
from forge_jobs.cli.bulk import (
    All,
    BulkMove,
    InGroup,
    NoWait,
    OfKind,
    OfQueue,
    OfState,
    Rate,
    WithKey,
    WithTags,
    check_choice,
    filter_of,
)
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report, print_report
from forge_jobs.cli.table import Rows
from forge_jobs.cli.values import shortened, shown_attempts, since, until
from forge_jobs.client.document import document, readable
from forge_jobs.client.jobs import MOST_LISTED
from forge_jobs.client.operations import states_of
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.forge import Forge
from forge_jobs.model.job import ENDED, Cancelled, Job, JobProgress, Removed, State
from forge_jobs.model.match import Move
from forge_jobs.rules.checks import MAX_ID
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import first_line, to_the_second

group = CommandGroup(help="Look at jobs, cancel, retry and delete them, and ask why one is not running.")

a_job = values.whole("The job's id", least=1, most=MAX_ID)

Id = Annotated[int, Argument(help="The job's id.", metavar="ID", parser=a_job)]
Ids = Annotated[list[int] | None, Argument(help="Ids of jobs.", metavar="[ID]...", parser=a_job)]
Limit = Annotated[
    int,
    Option(
        "--limit",
        metavar="N",
        help="Show at most this many jobs, newest first.",
        parser=values.whole("--limit", least=1, most=MOST_LISTED),
    ),
]
Before = Annotated[
    int | None,
    Option(
        "--before",
        metavar="ID",
        help="Only jobs older than this one, to get the next page.",
        parser=values.whole("--before", least=1, most=MAX_ID),
    ),
]


@command(group, "list")
async def list_jobs(
    call: Call,
    state: OfState = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    key: WithKey = None,
    in_group: InGroup = None,
    tag: WithTags = None,
    limit: Limit = 50,
    before: Before = None,
) -> Report:
    """List jobs, newest first."""
    async with opened(call) as forge:
        which = asdict(filter_of(queue, kind, key, in_group, tag))
        jobs = await forge.jobs.list(state=state, **which, limit=limit, before=before)
        now = await forge.storage.now()
    columns = ["id", "state", "kind", "queue", "attempt", "priority", "age", "when", "progress", "error"]
    rows = Rows(columns, [_row(job, now) for job in jobs], "No jobs.", frozenset({"id", "priority"}))
    return Report([document(job) for job in jobs], [rows])


def _row(job: Job, now: datetime) -> list[str]:
    return [
        str(job.id),
        job.state.value,
        job.kind,
        job.queue,
        shown_attempts(job.attempt, job.max_attempts),
        str(job.priority),
        since(job.created_at, now),
        _when(job, now),
        shortened(shown_progress(job.progress)),
        shortened(first_line(job.error)) if job.error else "",
    ]


def _when(job: Job, now: datetime) -> str:
    """Return the moment that matters in the job's state."""
    if job.state in (State.SCHEDULED, State.RETRYING):
        return until(job.run_at, now)
    if job.state is State.IN_PROGRESS:
        return f"for {since(job.claimed_at, now)}"
    return (
        ""
        if job.state in (State.PENDING, State.BLOCKED, State.WAITING)
        else f"{since(job.finished_at, now)} ago"
    )


def shown_progress(progress: JobProgress | None) -> str:
    """Return how far a job is, in a few words."""
    if progress is None:
        return ""
    return f"{progress.share:.0%}" + (f" {first_line(progress.note)}" if progress.note else "")


@command(group, "show")
async def show(call: Call, id: Id) -> Report:
    """Show everything known about a job: payload, result, and the errors of its attempts."""
    async with opened(call) as forge:
        job = await forge.jobs.get(id)
    failures = Rows(
        ["attempt", "at", "worker", "error"],
        [
            [str(failure.attempt), to_the_second(failure.at), failure.worker or "", first_line(failure.error)]
            for failure in job.failures
        ],
    )
    shown: list[Rows | str] = [
        _card(job),
        *([job_steps.steps(job)] if job.steps else []),
        *([job_steps.signals(job)] if job.signals else []),
        *([failures] if job.failures else []),
    ]
    return Report(document(job), shown)


def _card(job: Job) -> str:
    """Return the job's facts, one a line; those it does not have are left out."""
    moments = ("created_at", "run_at", "claimed_at", "cancel_requested_at", "started_at", "finished_at")
    facts = {
        "job": f"{job.id}",
        "state": job.state.value + (f" ({job.reason.value})" if job.reason else ""),
        "kind": job.kind,
        "queue": job.queue,
        "priority": f"{job.priority}" + (f" (risen to {job.priority - job.risen})" if job.risen else ""),
        "attempt": shown_attempts(job.attempt, job.max_attempts),
        "timeout": in_words(job.timeout) if job.timeout else None,
        "key": job.key,
        "groups": ", ".join(group.name for group in job.groups) or None,
        "tenant": job.tenant,
        "pinned to": None if job.pin is None else f"version {job.pin.name}",
        "tags": ", ".join(job.tags) or None,
        "rerun of": None if job.rerun_of is None else f"{job.rerun_of}",
        "run again as": ", ".join(map(str, job.reruns)) or None,
        "worker": job.worker,
        "progress": None
        if job.progress is None
        else f"{shown_progress(job.progress)} (attempt {job.progress.attempt}, {_shown(job.progress.at)})",
        "start by": _shown(job.start_by),
        "deadline": _shown(job.deadline),
        **{name.removesuffix("_at").replace("_", " "): _shown(getattr(job, name)) for name in moments},
        "payload": json.dumps(readable(job.payload, job.codec, job.redacted), ensure_ascii=False),
        "result": None
        if job.result is None
        else json.dumps(readable(job.result, job.codec, job.redacted), ensure_ascii=False),
        "error": job.error.rstrip().replace("\n", "\n                  ") if job.error else None,
    }
    return "\n".join(f"{name:<16}  {fact}" for name, fact in facts.items() if fact is not None)


def _shown(moment: datetime | None) -> str | None:
    return to_the_second(moment) if moment else None


@command(group, "why")
async def why(call: Call, id: Id) -> Report:
    """Explain why a job is not running, how long it has been running, or how it ended."""
    async with opened(call) as forge:
        answer = await forge.jobs.why(id)
    return Report(
        document(answer), ["\n".join([f"Job {answer.job_id} is {answer.state.value}.", *answer.reasons])]
    )


@command(group, "wait")
async def wait(
    call: Call,
    id: Id,
    timeout: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--timeout"),
            help="Fail after this time, like 90s, 5m, 2h or 7d.",
        ),
    ] = None,
) -> Report:
    """Wait until a job is done and print its result; fail when it is dead or --timeout has passed."""
    async with opened(call) as forge:
        return await ended(forge, id, timeout)


async def ended(forge: Forge, id: int, timeout: timedelta | None) -> Report:
    """Return the job's result once it is done. Raises JobDead, WaitTimeout, JobNotFound."""
    await forge.wait(id, timeout=timeout)
    job = await forge.jobs.get(id)
    result = readable(job.result, job.codec, job.redacted)  # which need not be JSON
    return Report(
        {"id": id, "state": State.DONE.value, "result": result}, [json.dumps(result, ensure_ascii=False)]
    )


@command(group, "watch")
async def watch(
    call: Call,
    id: Id,
    interval: Annotated[
        timedelta,
        Option(
            metavar="DURATION",
            help="The time between two looks.",
            default="1s",
            parser=values.duration("--interval", least=timedelta(milliseconds=100)),
        ),
    ] = timedelta(seconds=1),
) -> Report:
    """Show how far a job is until it has ended, then its result; fail when it is dead."""
    last = None
    async with opened(call) as forge:
        while (job := await forge.jobs.get(id)).state not in ENDED:
            shown = f"{job.state.value}  {shown_progress(job.progress)}".rstrip()
            if shown != last:
                print_report(Report(document(job), [shown]), as_json=call.as_json)
            last = shown
            await asyncio.sleep(interval.total_seconds())
        return await ended(forge, id, None)


@command(group, "cancel")
async def cancel(
    call: Call,
    ids: Ids = None,
    all: All = False,
    state: OfState = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    key: WithKey = None,
    in_group: InGroup = None,
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
) -> Report:
    """Cancel jobs: waiting ones are dead at once, running ones are stopped by their worker. No retry."""
    which = filter_of(queue, kind, key, in_group, tag)
    check_choice(ids, all, state, which, dry_run, no_wait)
    async with opened(call) as forge:
        if ids:
            return await each(forge, ids, _cancel)
        states = states_of(state, Move.CANCEL)
        return await BulkMove("cancel", Move.CANCEL, states, which).do(
            call, forge, yes=yes, dry_run=dry_run, no_wait=no_wait
        )


async def _cancel(forge: Forge, id: int) -> tuple[str, str]:
    cancelled = await forge.jobs.cancel(id)
    if cancelled is Cancelled.ENDED:
        raise ForgeError(f"Job {id} had already ended; nothing was changed.")
    is_running = cancelled is Cancelled.REQUESTED
    return (
        cancelled.value,
        f"Job {id} {'is running; its worker is told to stop it' if is_running else 'is cancelled'}.",
    )


@command(group, "retry")
async def retry(
    call: Call,
    ids: Ids = None,
    all: All = False,
    state: OfState = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    key: WithKey = None,
    in_group: InGroup = None,
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    rate: Rate = None,
) -> Report:
    """Run dead, expired or retrying jobs again now, with attempts counted from 0. --all takes the dead ones, unless --state says."""
    which = filter_of(queue, kind, key, in_group, tag)
    check_choice(ids, all, state, which, dry_run, no_wait)
    if rate is not None and not all:
        raise InvalidInput("--rate goes with --all, not with ids.")
    async with opened(call) as forge:
        if ids:
            return await each(forge, ids, _retry)
        states = states_of(state or State.DEAD, Move.RETRY)
        return await BulkMove("retry", Move.RETRY, states, which, rate=rate).do(
            call, forge, yes=yes, dry_run=dry_run, no_wait=no_wait
        )


async def _retry(forge: Forge, id: int) -> tuple[str, str]:
    if not await forge.jobs.retry(id):
        raise ForgeError(f"Job {id} was not retried: another job with its key has not ended.")
    return "pending", f"Job {id} is pending."


@command(group, "rerun")
async def rerun(
    call: Call,
    id: Id,
    payload: Annotated[
        str | None,
        Argument(help="Other arguments than it had, a JSON object, or an array of items.", metavar="[JSON]"),
    ] = None,
    payload_file: Annotated[
        str | None, Option(metavar="FILE", help="Read the other arguments from a file; - is stdin.")
    ] = None,
    from_step: Annotated[
        str | None,
        Option(metavar="STEP", help="Do not do again the steps that it did before this one."),
    ] = None,
) -> Report:
    """Enqueue a new job that is like an ended one, with its arguments or others. Each shows the other."""
    text = values.text(payload, payload_file)
    other = None if text is None else values.payload(text)
    async with opened(call) as forge:
        job = await forge.jobs.rerun(id, other, from_step=from_step)
    if job.duplicate:
        raise ForgeError(f"Job {id} was not run again: job {job.id} has its key, and has not ended.")
    return Report({"id": job.id, "rerun_of": id}, [f"Job {job.id} runs job {id} again."])


@command(group, "run-now")
async def run_now(
    call: Call, ids: Annotated[list[int], Argument(help="Ids of jobs.", metavar="ID...", parser=a_job)]
) -> Report:
    """Make scheduled or retrying jobs pending now."""
    async with opened(call) as forge:
        return await each(forge, ids, _run_now)


async def _run_now(forge: Forge, id: int) -> tuple[str, str]:
    changed = await forge.jobs.run_now(id)
    return "pending", f"Job {id} {'is' if changed else 'was'} pending{'' if changed else ' already'}."


@command(group, "delete")
async def delete(
    call: Call,
    ids: Ids = None,
    all: All = False,
    state: OfState = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    key: WithKey = None,
    in_group: InGroup = None,
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
) -> Report:
    """Delete jobs and their history; not while they are running. --all needs a --state."""
    which = filter_of(queue, kind, key, in_group, tag)
    check_choice(ids, all, state, which, dry_run, no_wait)
    if all and state is None:
        raise InvalidInput(
            "forge-jobs jobs delete --all needs a --state, so that it deletes no more than you meant."
        )
    async with opened(call) as forge:
        if ids:
            return await each(forge, ids, _delete)
        states = states_of(state, Move.DELETE)
        return await BulkMove("delete", Move.DELETE, states, which).do(
            call, forge, yes=yes, dry_run=dry_run, no_wait=no_wait
        )


async def _delete(forge: Forge, id: int) -> tuple[str, str]:
    await forge.jobs.delete(id)
    return "deleted", f"Job {id} is deleted."


@command(group, "remove")
async def remove(
    call: Call,
    kind: Annotated[str, Argument(help="The kind of the job.", metavar="KIND")],
    key: Annotated[str, Argument(help="Its key.", metavar="KEY")],
) -> Report:
    """Delete the job that has a key, while it waits. One that runs goes on, but is never tried again."""
    async with opened(call) as forge:
        removed = await forge.jobs.remove(kind, key)
    match removed:
        case Removed.NOT_FOUND:
            raise ForgeError(f"No job of kind {kind!r} that has not ended has the key {key!r}.")
        case Removed.WILL_NOT_RETRY:
            sentence = (
                f"The job with the key {key!r} is running; it is never tried again, and the key is free."
            )
        case _:
            sentence = f"The job with the key {key!r} is deleted."
    return Report({"kind": kind, "key": key, "result": removed.value}, [sentence])


async def each(
    forge: Forge, ids: list[int], change: Callable[[Forge, int], Awaitable[tuple[str, str]]]
) -> Report:
    """Return what became of each job; one that cannot be changed does not keep the others from it."""
    documents, sentences, errors = [], [], []
    for id in dict.fromkeys(ids):
        try:
            result, sentence = await change(forge, id)
        except InvalidInput:
            raise
        except ForgeError as error:
            errors.append(str(error))
        else:
            documents.append({"id": id, "result": result})
            sentences.append(sentence)
    return Report(documents or None, sentences, errors)

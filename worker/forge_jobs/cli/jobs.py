"""`forge-jobs jobs`: look at jobs, cancel, retry and delete them, and ask why."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import typer

from forge_jobs.cli import values
from forge_jobs.cli.asking import DryRun, Yes, counted, described, require_a_word, require_yes, would_be
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.output import Report, Rows
from forge_jobs.cli.progress import progress
from forge_jobs.cli.values import shortened, shown_attempts, since, until
from forge_jobs.client.checks import MAX_ID
from forge_jobs.client.document import document, readable
from forge_jobs.client.jobs import MOST_LISTED, Bulk, states_of
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.forge import Forge
from forge_jobs.model.job import Cancelled, Job, Removed, State
from forge_jobs.model.match import Move
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import first_line, to_the_second

group = typer.Typer(help="Look at jobs, cancel, retry and delete them, and ask why one is not running.")

a_job = values.whole("The job's id", least=1, most=MAX_ID)

Id = Annotated[int, typer.Argument(help="The job's id.", metavar="ID", parser=a_job)]
Ids = Annotated[list[int] | None, typer.Argument(help="Ids of jobs.", metavar="[ID]...", parser=a_job)]
All = Annotated[bool, typer.Option("--all", help="All jobs that match the filters, instead of ids.")]
OfState = Annotated[
    State | None,
    typer.Option(
        "--state",
        metavar="STATE",
        help=f"Only jobs in this state: {', '.join(State)}.",
        parser=values.one_of("--state", State),
    ),
]
OfQueue = Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only jobs of this queue.")]
OfKind = Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Only jobs of this kind.")]
WithTags = Annotated[
    list[str] | None,
    typer.Option(
        "--tag", metavar="TAG", help="Only jobs with this tag; given several times, with all of them."
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        "--limit",
        metavar="N",
        help="Show at most this many jobs, newest first.",
        parser=values.whole("--limit", least=1, most=MOST_LISTED),
    ),
]
Before = Annotated[
    int | None,
    typer.Option(
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
    tag: WithTags = None,
    limit: Limit = 50,
    before: Before = None,
) -> Report:
    """List jobs, newest first."""
    async with opened(call) as forge:
        jobs = await forge.jobs.list(
            state=state, queue=queue, kind=kind, tags=tag or (), limit=limit, before=before
        )
        now = await forge.storage.now()
    columns = ["id", "state", "kind", "queue", "attempt", "priority", "age", "when", "error"]
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
        shortened(first_line(job.error)) if job.error else "",
    ]


def _when(job: Job, now: datetime) -> str:
    """Return the moment that matters in the job's state."""
    if job.state in (State.SCHEDULED, State.RETRYING):
        return until(job.run_at, now)
    if job.state is State.IN_PROGRESS:
        return f"for {since(job.claimed_at, now)}"
    return "" if job.state in (State.PENDING, State.BLOCKED) else f"{since(job.finished_at, now)} ago"


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
    return Report(document(job), [_card(job), *([failures] if job.failures else [])])


def _card(job: Job) -> str:
    """Return the job's facts, one a line; those it does not have are left out."""
    moments = ("created_at", "run_at", "claimed_at", "cancel_requested_at", "started_at", "finished_at")
    facts = {
        "job": f"{job.id}",
        "state": job.state.value + (f" ({job.reason.value})" if job.reason else ""),
        "kind": job.kind,
        "queue": job.queue,
        "priority": f"{job.priority}",
        "attempt": shown_attempts(job.attempt, job.max_attempts),
        "timeout": in_words(job.timeout) if job.timeout else None,
        "key": job.key,
        "groups": ", ".join(group.name for group in job.groups) or None,
        "tags": ", ".join(job.tags) or None,
        "rerun of": None if job.rerun_of is None else f"{job.rerun_of}",
        "run again as": ", ".join(map(str, job.reruns)) or None,
        "worker": job.worker,
        "start by": _shown(job.start_by),
        "deadline": _shown(job.deadline),
        **{name.removesuffix("_at").replace("_", " "): _shown(getattr(job, name)) for name in moments},
        "payload": json.dumps(readable(job.payload, job.codec), ensure_ascii=False),
        "result": None
        if job.result is None
        else json.dumps(readable(job.result, job.codec), ensure_ascii=False),
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
        typer.Option(
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
    result = readable(job.result, job.codec)  # which need not be JSON
    return Report(
        {"id": id, "state": State.DONE.value, "result": result}, [json.dumps(result, ensure_ascii=False)]
    )


@command(group, "cancel")
async def cancel(
    call: Call,
    ids: Ids = None,
    all: All = False,
    state: OfState = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Report:
    """Cancel jobs: waiting ones are dead at once, running ones are stopped by their worker. No retry."""
    _check_choice(ids, all, state, queue, kind, tag, dry_run)
    async with opened(call) as forge:
        if ids:
            return await _each(forge, ids, _cancel)
        states = states_of(state, Move.CANCEL)
        return await _BulkMove("cancel", "cancelled", states, state, queue, kind, tag or ()).do(
            call, forge, forge.jobs.cancel_all, yes=yes, dry_run=dry_run
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
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Report:
    """Run dead, expired or retrying jobs again now, with attempts counted from 0. --all takes the dead ones, unless --state says."""
    _check_choice(ids, all, state, queue, kind, tag, dry_run)
    async with opened(call) as forge:
        if ids:
            return await _each(forge, ids, _retry)
        states = states_of(state or State.DEAD, Move.RETRY)
        return await _BulkMove("retry", "retried", states, states[0], queue, kind, tag or ()).do(
            call, forge, forge.jobs.retry_all, yes=yes, dry_run=dry_run
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
        typer.Argument(help="Other arguments than it had, a JSON object.", metavar="[JSON]"),
    ] = None,
    payload_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Read the other arguments from a file; - is stdin.")
    ] = None,
) -> Report:
    """Enqueue a new job that is like an ended one, with its arguments or others. Each shows the other."""
    text = values.text(payload, payload_file)
    async with opened(call) as forge:
        job = await forge.jobs.rerun(id, None if text is None else values.payload(text))
    if job.duplicate:
        raise ForgeError(f"Job {id} was not run again: job {job.id} has its key, and has not ended.")
    return Report({"id": job.id, "rerun_of": id}, [f"Job {job.id} runs job {id} again."])


@command(group, "run-now")
async def run_now(
    call: Call, ids: Annotated[list[int], typer.Argument(help="Ids of jobs.", metavar="ID...", parser=a_job)]
) -> Report:
    """Make scheduled or retrying jobs pending now."""
    async with opened(call) as forge:
        return await _each(forge, ids, _run_now)


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
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Report:
    """Delete jobs and their history; not while they are running. --all needs a --state."""
    _check_choice(ids, all, state, queue, kind, tag, dry_run)
    if all and state is None:
        raise InvalidInput(
            "forge-jobs jobs delete --all needs a --state, so that it deletes no more than you meant."
        )
    async with opened(call) as forge:
        if ids:
            return await _each(forge, ids, _delete)
        states = states_of(state, Move.DELETE)
        return await _BulkMove("delete", "deleted", states, state, queue, kind, tag or ()).do(
            call, forge, forge.jobs.delete_all, yes=yes, dry_run=dry_run
        )


async def _delete(forge: Forge, id: int) -> tuple[str, str]:
    await forge.jobs.delete(id)
    return "deleted", f"Job {id} is deleted."


@command(group, "remove")
async def remove(
    call: Call,
    kind: Annotated[str, typer.Argument(help="The kind of the job.", metavar="KIND")],
    key: Annotated[str, typer.Argument(help="Its key.", metavar="KEY")],
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


def _check_choice(
    ids: list[int] | None,
    all: bool,
    state: State | None,
    queue: str | None,
    kind: str | None,
    tags: list[str] | None,
    dry_run: bool,
) -> None:
    """Jobs are named by ids, or by --all with filters; a filter never narrows ids."""
    if bool(ids) == all:
        raise InvalidInput(
            "Name the jobs: either by their ids, or with --all and the filters --state, --queue, --kind, --tag."
        )
    if ids and (state or queue or kind or tags):
        raise InvalidInput("The filters --state, --queue, --kind and --tag go with --all, not with ids.")
    if ids and dry_run:
        raise InvalidInput("--dry-run goes with --all, not with ids.")


async def _each(
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


@dataclass(frozen=True, slots=True)
class _BulkMove:
    """What is done to all jobs that match, and to which: those of `states`, which is what `state` stands for."""

    verb: str
    done: str
    states: Sequence[State]
    state: State | None
    queue: str | None
    kind: str | None
    tags: Sequence[str]

    async def do(
        self, call: Call, forge: Forge, change: Callable[..., Awaitable[Bulk]], *, yes: bool, dry_run: bool
    ) -> Report:
        """Return what became of all jobs that match, and show meanwhile how far it is; ask before, unless `yes`."""
        require_a_word(call, f"forge-jobs jobs {self.verb} --all", yes=yes, dry_run=dry_run)
        if not yes:
            counts = await counted(forge.jobs, self.states, self.queue, self.kind, self.tags)
            what = described(counts, self.queue, self.kind, self.tags)
            if dry_run:
                return would_be(counts, what, self.done)
            if any(counts.values()):
                require_yes(f"{self.verb.capitalize()} {what}?")
        with progress(as_json=call.as_json) as tell:
            bulk = await change(
                state=self.state,
                queue=self.queue,
                kind=self.kind,
                tags=self.tags,
                progress=lambda so_far: tell(_sentence(self.done, so_far), _document(self.done, so_far)),
            )
        return bulk_report(self.done, bulk)


def bulk_report(verb: str, bulk: Bulk) -> Report:
    """Return what became of all jobs that matched; it has failed when some are as they were."""
    noun, them = ("job was", "it") if bulk.locked == 1 else ("jobs were", "them")
    left = (
        f"{bulk.locked:,} {noun} not {verb}: another transaction keeps {them} locked; run the command again."
    )
    return Report(_document(verb, bulk), [_sentence(verb, bulk)], [left] if bulk.locked else ())


def _document(verb: str, bulk: Bulk) -> dict[str, object]:
    running = {"running": bulk.running} if verb == "cancelled" else {}
    return {verb: bulk.changed, **running, "skipped": bulk.skipped, "locked": bulk.locked}


def _sentence(verb: str, bulk: Bulk) -> str:
    noun = "job was" if bulk.changed == 1 else "jobs were"
    parts = [f"{bulk.changed:,} {noun} {verb}"]
    if bulk.running:
        parts.append(f"{bulk.running:,} of them are running, and their workers are told")
    if bulk.skipped:
        parts.append(f"{bulk.skipped:,} could not be: another job with their key has not ended")
    return "; ".join(parts) + "."

"""`forge-jobs queues`: the configuration of queues, tuned live."""

from datetime import datetime, timedelta
from typing import Annotated, Any

from forge_jobs.cli import values
from forge_jobs.cli.asking import DryRun, Yes, described, require_a_word, require_yes, would_be
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.pause import For, Until, Why, pause_end, until_when
from forge_jobs.cli.progress import progress
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.client.job_filter import JobFilter
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import count

group = CommandGroup(help="Look at queues, pause, tune and delete them; workers follow within two seconds.")

Name = Annotated[str, Argument(help="The queue's name.", metavar="NAME")]
Names = Annotated[list[str], Argument(help="Names of queues.", metavar="NAME...")]


@command(group, "list")
async def list_queues(call: Call) -> Report:
    """List queues and their configuration."""
    async with opened(call) as forge:
        queues = await forge.queues.list()
        now = await forge.storage.now()
    return Report([document(queue) for queue in queues], [_rows(queues, now)])


@command(group, "set")
async def set_queue(
    call: Call,
    name: Name,
    concurrency: Annotated[
        str | None,
        Option(
            metavar="N|none",
            help="How many jobs may be in progress at once over all workers; none: no limit.",
        ),
    ] = None,
    paused: Annotated[
        bool | None,
        Option("--paused/--not-paused", help="Whether the queue is paused: no job of it is claimed."),
    ] = None,
    backoff: Annotated[
        bool | None,
        Option("--backoff/--no-backoff", help="Whether failed jobs wait before they are retried."),
    ] = None,
    backoff_base: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="The wait after the first failure; it doubles with each further failure.",
            parser=values.duration("--backoff-base"),
        ),
    ] = None,
    backoff_max: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="The longest wait before a retry.",
            parser=values.duration("--backoff-max"),
        ),
    ] = None,
    max_attempts: Annotated[
        str | None,
        Option(
            metavar="N|forever", help="How many attempts a job may have that does not set its own number."
        ),
    ] = None,
    done_retention: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="How long done jobs are kept; 0: not at all.",
            parser=values.duration("--done-retention"),
        ),
    ] = None,
    dead_retention: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="How long dead jobs are kept; 0: not at all.",
            parser=values.duration("--dead-retention"),
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        Option(
            metavar="DURATION|none",
            help="How long an attempt may take, for jobs that do not set their own timeout; none: no limit.",
        ),
    ] = None,
    rate_limit: Annotated[
        str | None,
        Option(
            metavar="SCOPE|none",
            help="The rate limit from which each job takes a token when it starts; none: starts are not limited.",
        ),
    ] = None,
    group_limit: Annotated[
        str | None,
        Option(
            metavar="N|none",
            help="The limit of groups of its jobs for which nobody has said one; none: 1.",
        ),
    ] = None,
    age_after: Annotated[
        str | None,
        Option(
            metavar="DURATION|none",
            help="Each time a job has been pending for so long, its priority rises by 1; none: never.",
        ),
    ] = None,
) -> Report:
    """Configure a queue, and create it if there is none of that name. Options that are not given stay as they are."""
    changes: dict[str, Any] = {
        "paused": paused,
        "backoff_enabled": backoff,
        "backoff_base": backoff_base,
        "backoff_max": backoff_max,
        "done_retention": done_retention,
        "dead_retention": dead_retention,
    }
    changes = {option: value for option, value in changes.items() if value is not None}
    if concurrency is not None:
        changes["concurrency"] = values.concurrency(concurrency)
    if max_attempts is not None:
        changes["max_attempts"] = values.attempts(max_attempts)
    if timeout is not None:
        changes["timeout"] = values.timeout(timeout)
    if rate_limit is not None:
        changes["rate_limit"] = None if rate_limit.lower() == "none" else rate_limit
    if group_limit is not None:
        changes["group_limit"] = values.group_limit(group_limit)
    if age_after is not None:
        changes["age_after"] = values.age_after(age_after)
    async with opened(call) as forge:
        queue = await forge.queues.set(name, **changes)
        now = await forge.storage.now()
    return Report(document(queue), [_rows([queue], now)])


@command(group, "pause")
async def pause(call: Call, names: Names, for_: For = None, until: Until = None, why: Why = None) -> Report:
    """Stop claiming jobs of queues; running jobs go on."""
    end = pause_end(for_, until)
    async with opened(call) as forge:
        for name in names:
            await forge.queues.get(name)  # so that one unknown name changes nothing
        queues = [await forge.queues.pause(name, until=end, why=why) for name in names]
    return Report(
        [document(queue) for queue in queues],
        [f"Queue {queue.name!r} is paused{until_when(queue.paused_until)}." for queue in queues],
    )


@command(group, "resume")
async def resume(call: Call, names: Names) -> Report:
    """Claim jobs of queues again."""
    async with opened(call) as forge:
        for name in names:
            await forge.queues.get(name)  # so that one unknown name changes nothing
        queues = [await forge.queues.resume(name) for name in names]
    return Report(
        [document(queue) for queue in queues], [f"Queue {queue.name!r} is resumed." for queue in queues]
    )


@command(group, "delete")
async def delete(
    call: Call,
    name: Name,
    move_to: Annotated[
        str | None,
        Option("--move-to", metavar="NAME", help="Move its jobs and crons to this queue."),
    ] = None,
    drop: Annotated[bool, Option("--drop", help="Delete its jobs and crons too.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Report:
    """Delete a queue and its done jobs. A queue with other jobs, or with crons that enqueue to it, is kept unless they are moved or dropped."""
    if drop:
        require_a_word(call, "forge-jobs queues delete --drop", yes=yes, dry_run=dry_run)
    async with opened(call) as forge:
        if dry_run or (drop and not yes):
            counts = await forge.queues.preview_delete(name, move_to=move_to, drop=drop)
            what = described(counts, JobFilter(name))
            if dry_run:
                return would_be(counts, what, "moved" if move_to else "deleted with it")
            require_yes(f"Delete queue {name} and its crons, and with them {what}?")
        with progress(as_json=call.as_json) as tell:
            bulk = await forge.queues.delete(
                name,
                move_to=move_to,
                drop=drop,
                progress=lambda so_far: tell(
                    _emptied(so_far.changed, move_to), _deleted(name, so_far.changed, move_to)
                ),
            )
    return Report(
        _deleted(name, bulk.changed, move_to) | {"deleted": True},
        [f"Queue {name!r} is deleted; {_emptied(bulk.changed, move_to)}"],
    )


def _emptied(jobs: int, move_to: str | None) -> str:
    verb = "was" if jobs == 1 else "were"
    return f"{count(jobs, 'job')} {verb} {f'moved to {move_to!r}' if move_to else 'deleted with it'}."


def _deleted(name: str, jobs: int, move_to: str | None) -> dict[str, object]:
    return {"name": name, "jobs": jobs, "moved_to": move_to}


def _rows(queues: Any, now: datetime) -> Rows:
    columns = [
        "queue",
        "state",
        "concurrency",
        "attempts",
        "backoff",
        "timeout",
        "rate limit",
        "group limit",
        "rises after",
        "keeps done",
        "keeps dead",
        "managed by",
    ]
    return Rows(
        columns,
        [_row(queue, now) for queue in queues],
        "No queues.",
        frozenset({"concurrency", "attempts", "group limit"}),
    )


def _row(queue: QueueConfig, now: datetime) -> list[str]:
    backoff = f"{in_words(queue.backoff_base)} to {in_words(queue.backoff_max)}"
    return [
        queue.name,
        state(queue, now),
        "no limit" if queue.concurrency is None else f"{queue.concurrency:,}",
        values.shown_most(queue.max_attempts),
        backoff if queue.backoff_enabled else "off",
        "none" if queue.timeout is None else in_words(queue.timeout),
        queue.rate_limit or "none",
        f"{queue.group_limit or 1:,}",
        "never" if queue.age_after is None else in_words(queue.age_after),
        in_words(queue.done_retention),
        in_words(queue.dead_retention),
        queue.managed_by or "",
    ]


def state(queue: QueueConfig, now: datetime) -> str:
    """Return 'active', 'paused' and for how long, or for how long the queue cools down."""
    if queue.paused:
        if queue.paused_until is None or queue.paused_until <= now:
            return "paused"
        return f"paused for {in_words(queue.paused_until - now)}"
    if queue.cooldown_until and queue.cooldown_until > now:
        return f"cools down for {in_words(queue.cooldown_until - now)}"
    return "active"

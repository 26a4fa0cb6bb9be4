"""The commands of `forge-jobs jobs` that end or change single jobs by hand, and show what was done to one."""

from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.asking import DECLINED, DryRun, Yes, require_a_word, require_yes
from forge_jobs.cli.bulk import InGroup, OfKind, OfQueue, WithKey, WithTags, filter_of
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.jobs import each
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.progress import progress
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.forge import Forge
from forge_jobs.model.job import FAILED_BY_USER, LAST_ATTEMPT, State
from forge_jobs.model.unset import UNSET, Unset
from forge_jobs.rules.checks import MAX_ID
from forge_jobs.rules.names import LARGEST_PRIORITY, SMALLEST_PRIORITY
from forge_jobs.rules.words import count, first_line, to_the_second

SomeIds = Annotated[
    list[int],
    Argument(help="Ids of jobs.", metavar="ID...", parser=values.whole("The job's id", least=1, most=MAX_ID)),
]


def register(jobs: CommandGroup) -> None:
    """`jobs` has the commands."""
    command(jobs, "complete")(complete)
    command(jobs, "fail")(fail)
    command(jobs, "change")(change)
    command(jobs, "unpin")(unpin)
    command(jobs, "repin")(repin)
    command(jobs, "history")(history)


async def history(
    call: Call,
    id: Annotated[
        int,
        Argument(
            help="The job's id.", metavar="ID", parser=values.whole("The job's id", least=1, most=MAX_ID)
        ),
    ],
) -> Report:
    """Show what is still known of a job, moment by moment: its failed attempts, its steps, what people did to it, its end."""
    async with opened(call) as forge:
        entries = await forge.jobs.history(id)
    rows = [
        [
            to_the_second(entry.at),
            entry.what.value,
            "" if entry.attempt is None else str(entry.attempt),
            entry.by or entry.worker or "",
            values.shortened(first_line(entry.note)) if entry.note else "",
        ]
        for entry in entries
    ]
    table = Rows(["at", "what", "attempt", "who", "note"], rows, right=frozenset({"attempt"}))
    return Report([document(entry) for entry in entries], [table])


async def complete(
    call: Call,
    ids: SomeIds,
    result: Annotated[
        str | None, Option(metavar="JSON", help="Their result, for those who wait for it.")
    ] = None,
) -> Report:
    """Make jobs done that no worker has, since their work was done elsewhere; also dead and expired ones."""
    value = None if result is None else values.any_json(result, "--result")
    async with opened(call) as forge:
        return await each(forge, ids, partial(_complete, result=value))


async def _complete(forge: Forge, id: int, *, result: object) -> tuple[str, str]:
    await forge.jobs.complete(id, result)
    return State.DONE.value, f"Job {id} is done."


async def fail(
    call: Call,
    ids: SomeIds,
    reason: Annotated[
        str, Option(metavar="TEXT", help="Why: the error that it shows.", default=FAILED_BY_USER)
    ] = FAILED_BY_USER,
) -> Report:
    """Make waiting jobs dead, for a reason."""
    async with opened(call) as forge:
        return await each(forge, ids, partial(_fail, reason=reason))


async def _fail(forge: Forge, id: int, *, reason: str) -> tuple[str, str]:
    await forge.jobs.fail(id, reason)
    return State.DEAD.value, f"Job {id} is dead: {reason}"


async def unpin(call: Call, ids: SomeIds) -> Report:
    """Let any version of the program go on with jobs that another one has begun and is pinned to, say since it is gone."""
    async with opened(call) as forge:
        return await each(forge, ids, _unpin)


async def repin(
    call: Call,
    version: Annotated[str, Argument(help="The version that they are pinned to.", metavar="VERSION")],
    to: Annotated[str | None, Option(metavar="VERSION", help="The version that goes on with them.")] = None,
    queue: OfQueue = None,
    kind: OfKind = None,
    key: WithKey = None,
    in_group: InGroup = None,
    tag: WithTags = None,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> Report:
    """Let another version go on with all jobs that one has begun and that are pinned to it; without --to, any version. Interrupted, run it again."""
    require_a_word(call, "forge-jobs jobs repin", yes=yes, dry_run=dry_run)
    which = asdict(filter_of(queue, kind, key, in_group, tag))
    goes_on = "any version" if to is None else f"version {to}"
    async with opened(call) as forge:
        all_of_it = partial(forge.jobs.repin_all, version, to, **which)
        if not yes:
            meant = await all_of_it(dry_run=True)
            jobs = count(meant, "job")
            if dry_run:
                sentence = f"{jobs} would go on with {goes_on}. {DECLINED}"
                return Report({"dry_run": True, "jobs": meant}, [sentence])
            if meant:
                require_yes(f"Let {jobs} go on with {goes_on}?")
        with progress(as_json=call.as_json) as tell:
            moved = await all_of_it(
                progress=lambda so_far: tell(_gone_on(so_far, goes_on), {"repinned": so_far})
            )
    return Report({"repinned": moved}, [_gone_on(moved, goes_on)])


def _gone_on(jobs: int, goes_on: str) -> str:
    return f"{count(jobs, 'job')} {'goes' if jobs == 1 else 'go'} on with {goes_on}."


async def _unpin(forge: Forge, id: int) -> tuple[str, str]:
    if await forge.jobs.unpin(id):
        return "unpinned", f"Job {id} goes on with any version of the program."
    return "not pinned", f"Job {id} was not pinned to a version of the program."


async def change(
    call: Call,
    ids: SomeIds,
    queue: Annotated[str | None, Option(metavar="NAME", help="They are of this queue.")] = None,
    priority: Annotated[
        int | None,
        Option(
            metavar="N",
            parser=values.whole("--priority", least=SMALLEST_PRIORITY, most=LARGEST_PRIORITY),
            help="Jobs of smaller numbers start first.",
        ),
    ] = None,
    attempts: Annotated[
        int | None,
        Option(
            metavar="N",
            parser=values.whole("--attempts", most=LAST_ATTEMPT),
            help="So many attempts have counted; with 0 they have all of them again.",
        ),
    ] = None,
    max_attempts: Annotated[
        str | None, Option(metavar="N|forever", help="How many attempts they may have.")
    ] = None,
    timeout: Annotated[
        str | None, Option(metavar="DURATION|none", help="How long an attempt may take.")
    ] = None,
    delay: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION", parser=values.duration("--delay"), help="They run after this time, like 90s."
        ),
    ] = None,
    run_at: Annotated[
        str | None,
        Option(metavar="TIME", help="They run at an ISO 8601 time; UTC when it names no zone."),
    ] = None,
) -> Report:
    """Change jobs that wait; what is not given stays. Running ones are not changed."""
    moment: datetime | None = None if run_at is None else values.parse_moment(run_at)
    limit: timedelta | Unset | None = UNSET if timeout is None else values.timeout(timeout)
    most: int | Unset | None = UNSET if max_attempts is None else values.attempts(max_attempts)
    async with opened(call) as forge:

        async def change_one(forge: Forge, id: int) -> tuple[str, str]:
            await forge.jobs.change(
                id,
                queue=queue,
                priority=priority,
                attempts=attempts,
                max_attempts=most,
                timeout=limit,
                delay=delay,
                run_at=moment,
            )
            return "changed", f"Job {id} is changed."

        return await each(forge, ids, change_one)

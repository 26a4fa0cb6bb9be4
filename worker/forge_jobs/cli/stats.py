"""`forge-jobs stats`: how many jobs of each queue are in each state, or what attempts came to, once or for as long as one watches."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import CommandGroup, Option
from forge_jobs.cli.output import Report, print_report, rendered_all
from forge_jobs.cli.queues import state
from forge_jobs.cli.statistics import ended_since
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.errors import InvalidInput
from forge_jobs.forge import Forge
from forge_jobs.model.job import Counts
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.statistics import MINUTE
from forge_jobs.rules.words import count
from forge_jobs.system.terminal import is_terminal, live

COLUMNS = (
    "queue",
    "state",
    "pending",
    "oldest",
    "blocked",
    "waiting",
    "scheduled",
    "running",
    "done",
    "dead",
    "expired",
    "workers",
)
NUMBERS = frozenset(
    {
        "pending",
        "oldest",
        "blocked",
        "waiting",
        "scheduled",
        "running",
        "done",
        "dead",
        "expired",
        "workers",
    }
)


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "stats")(stats)


async def stats(
    call: Call,
    watch: Annotated[
        bool, Option("--watch", help="Refresh until Ctrl-C; with --json, print one document per line.")
    ] = False,
    interval: Annotated[
        timedelta,
        Option(
            metavar="DURATION",
            help="The time between two refreshes, with --watch.",
            default="2s",
            parser=values.duration("--interval", least=timedelta(milliseconds=100)),
        ),
    ] = timedelta(seconds=2),
    since: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="Show instead what attempts came to within this time, and how long jobs waited and ran: 10m, 1h, 7d.",
            parser=values.duration("--since", least=MINUTE),
        ),
    ] = None,
    every: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="With --since, a row for each stretch of so many minutes.",
            parser=values.duration("--every", least=MINUTE),
        ),
    ] = None,
    queue: Annotated[str | None, Option(metavar="QUEUE", help="With --since, only this queue.")] = None,
    kind: Annotated[str | None, Option(metavar="KIND", help="With --since, only this kind.")] = None,
) -> Report | None:
    """Count the jobs of each queue by state; with --since, sum up what attempts came to."""
    if since is None and (every or queue or kind) is not None:
        raise InvalidInput("--every, --queue and --kind go with --since.")
    async with opened(call) as forge:

        async def report() -> Report:
            if since is None:
                return await taken(forge)
            return await ended_since(forge, since, every, queue, kind)

        if not watch:
            return await report()

        async def next_report() -> Report:
            await asyncio.sleep(interval.total_seconds())
            return await report()

        await _watch(await report(), next_report, as_json=call.as_json)
    return None


async def _watch(first: Report, next_report: Callable[[], Awaitable[Report]], *, as_json: bool) -> None:
    if as_json or not is_terminal(sys.stdout):
        print_report(first, as_json=as_json)
        while True:
            print_report(await next_report(), as_json=as_json)
    with live(sys.stdout, rendered_all(first)) as show:
        while True:
            show(rendered_all(await next_report()))


async def taken(forge: Forge) -> Report:
    """Return the counts as of now."""
    now = await forge.storage.now()
    queues = {queue.name: queue for queue in await forge.queues.list()}
    workers = await forge.workers.list()
    leader = await forge.workers.leader()
    counts = {row.queue: row for row in await forge.jobs.counts()}
    serving = {
        name: sum(name in worker.queues and not worker.draining for worker in workers) for name in queues
    }
    rows = [_row(queue, counts.get(name, Counts(name)), serving[name], now) for name, queue in queues.items()]
    documents = [
        {**document(counts.get(name, Counts(name))), "workers": serving[name], "paused": queue.paused}
        for name, queue in queues.items()
    ]
    who = f"{count(len(workers), 'worker')}, {leader.worker or leader.worker_id if leader else 'nobody'} leads, {now:%H:%M:%S} UTC"
    return Report(
        {
            "now": now.isoformat(),
            "queues": documents,
            "workers": len(workers),
            "leader": leader and leader.worker,
        },
        [Rows(COLUMNS, rows, "No queues.", NUMBERS), who],
    )


def _row(queue: QueueConfig, counts: Counts, workers: int, now: datetime) -> list[str]:
    return [
        queue.name,
        state(queue, now),
        f"{counts.pending:,}",
        values.since(counts.oldest_pending_at, now),
        f"{counts.blocked:,}",
        f"{counts.waiting:,}",
        f"{counts.scheduled:,}",
        f"{counts.in_progress:,}" + ("" if queue.concurrency is None else f"/{queue.concurrency:,}"),
        f"{counts.done:,}",
        f"{counts.dead:,}",
        f"{counts.expired:,}",
        f"{workers:,}",
    ]

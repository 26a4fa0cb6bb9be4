"""`forge-jobs operations`: what is done to many jobs, and how far it is; and the commands that only do that."""

from collections.abc import Sequence
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.asking import DryRun, Yes
from forge_jobs.cli.bulk import (
    FILTERS,
    BulkMove,
    InGroup,
    NoWait,
    OfKind,
    OfQueue,
    OfState,
    WithKey,
    WithTags,
    described_of,
    filter_of,
    finished,
)
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.jobs import group as jobs
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.cli.values import since
from forge_jobs.client.document import document
from forge_jobs.client.operations import MOST_LISTED, states_of
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.model.job import WAITING, State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import Operation
from forge_jobs.rules.checks import MAX_ID
from forge_jobs.rules.names import LARGEST_PRIORITY, SMALLEST_PRIORITY
from forge_jobs.rules.words import to_the_second

group = CommandGroup(help="Look at what is done to many jobs at once, wait for it, and end it.")

Id = Annotated[
    int,
    Argument(
        help="The operation's id.",
        metavar="ID",
        parser=values.whole("The operation's id", least=1, most=MAX_ID),
    ),
]
AllOfThem = Annotated[bool, Option("--all", help="All jobs that match the filters; it has to be said.")]


@command(group, "list")
async def list_operations(
    call: Call,
    limit: Annotated[
        int,
        Option(
            metavar="N", help="Show this many.", parser=values.whole("--limit", least=1, most=MOST_LISTED)
        ),
    ] = 50,
) -> Report:
    """List operations on many jobs, the newest first. Those that ended 30 days ago are forgotten."""
    async with opened(call) as forge:
        operations = await forge.operations.list(limit=limit)
        now = await forge.storage.now()
    columns = ["id", "state", "move", "changed", "meant", "by", "age", "error"]
    rows = [
        [
            str(one.id),
            one.state.value,
            one.move.value,
            f"{one.changed:,}",
            f"{one.meant:,}",
            one.asked_by,
            since(one.asked_at, now),
            one.error or "",
        ]
        for one in operations
    ]
    table = Rows(columns, rows, "No operations.", frozenset({"id", "changed", "meant"}))
    return Report([document(one) for one in operations], [table])


@command(group, "show")
async def show(call: Call, id: Id) -> Report:
    """Show which jobs an operation means, who asked for it, and how far it is."""
    async with opened(call) as forge:
        operation = await forge.operations.get(id)
    return Report(document(operation), [_card(operation)])


def _card(operation: Operation) -> str:
    facts = {
        "operation": f"{operation.id}",
        "state": operation.state.value,
        "what": described_of(operation),
        "rate": None if operation.rate is None else f"{operation.rate:g} a second",
        "asked by": f"{operation.asked_by}, {to_the_second(operation.asked_at)}",
        "some of them": ", ".join(map(str, operation.sample)) or None,
        "changed": f"{operation.changed:,}",
        "skipped": f"{operation.skipped:,}" if operation.skipped else None,
        "running": f"{operation.running:,}" if operation.running else None,
        "locked": f"{operation.locked:,}" if operation.locked else None,
        "ended": to_the_second(operation.ended_at) if operation.ended_at else None,
        "error": operation.error,
    }
    return "\n".join(f"{name:<12}  {fact}" for name, fact in facts.items() if fact is not None)


@command(group, "wait")
async def wait(call: Call, id: Id) -> Report:
    """Wait until an operation has ended, and make its steps where no worker does; say what became of it."""
    async with opened(call) as forge:
        return await finished(call, forge, await forge.operations.get(id))


@command(group, "cancel")
async def cancel(call: Call, id: Id) -> Report:
    """End an operation. What it has done stays done."""
    async with opened(call) as forge:
        if not await forge.operations.cancel(id):
            raise ForgeError(f"Operation {id} had already ended; nothing was changed.")
        operation = await forge.operations.get(id)
    return Report(
        document(operation),
        [f"Operation {id} is cancelled; {operation.changed:,} jobs were {operation.move.value}."],
    )


@command(jobs, "move")
async def move(
    call: Call,
    into: Annotated[str, Option("--to", metavar="NAME", help="The queue to which they go.")],
    all: AllOfThem = False,
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
    """Move jobs to another queue, where they keep their places: those that wait, unless --state says which."""
    _require_all(all, "move")
    which = filter_of(queue, kind, key, in_group, tag)
    waiting = [one for one in Move.TRANSFER.states if one in WAITING]
    states: Sequence[State] = waiting if state is None else states_of(state, Move.TRANSFER)
    async with opened(call) as forge:
        return await BulkMove("move", Move.TRANSFER, states, which, into=into).do(
            call, forge, yes=yes, dry_run=dry_run, no_wait=no_wait
        )


@command(jobs, "reprioritise")
async def reprioritise(
    call: Call,
    priority: Annotated[
        int,
        Option(
            metavar="N",
            help="Their new priority; jobs of smaller numbers start first.",
            parser=values.whole("--priority", least=SMALLEST_PRIORITY, most=LARGEST_PRIORITY),
        ),
    ],
    all: AllOfThem = False,
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
    """Give scheduled, retrying and pending jobs another priority."""
    _require_all(all, "reprioritise")
    which = filter_of(queue, kind, key, in_group, tag)
    states = states_of(state, Move.REPRIORITISE)
    async with opened(call) as forge:
        return await BulkMove("reprioritise", Move.REPRIORITISE, states, which, priority=priority).do(
            call, forge, yes=yes, dry_run=dry_run, no_wait=no_wait
        )


def _require_all(all: bool, verb: str) -> None:
    if not all:
        raise InvalidInput(f"forge-jobs jobs {verb} needs --all, and the filters {FILTERS}.")

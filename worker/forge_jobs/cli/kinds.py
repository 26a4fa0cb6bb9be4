"""`forge-jobs kinds`: what programs declare of the kinds of jobs, and pauses of kinds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup
from forge_jobs.cli.output import Report
from forge_jobs.cli.pause import For, Until, Why, pause_end, resumed, state_of, until_when
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.model.kind import Kind
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.rules.duration import in_words

group = CommandGroup(help="Look at the kinds of jobs, and pause them; workers follow within two seconds.")

Name = Annotated[str, Argument(help="The kind.", metavar="KIND")]
Names = Annotated[list[str], Argument(help="Kinds.", metavar="KIND...")]


@command(group, "list")
async def list_kinds(call: Call) -> Report:
    """List the kinds that programs have declared or live workers have handlers for, and those that are paused."""
    async with opened(call) as forge:
        paused = {pause.kind: pause for pause in await forge.kinds.paused()}
        kinds = [*await forge.kinds.list()]
        workers = Counter(kind for worker in await forge.workers.list() for kind in worker.kinds)
        now = await forge.storage.now()
    declared = {kind.kind for kind in kinds}
    kinds += [Kind(name) for name in sorted({*paused, *workers} - declared)]
    return Report(
        [
            document(kind) | {"paused": _document(paused.get(kind.kind)), "workers": workers[kind.kind]}
            for kind in kinds
        ],
        [_rows(kinds, paused, workers, now)],
    )


@command(group, "pause")
async def pause(call: Call, kinds: Names, for_: For = None, until: Until = None, why: Why = None) -> Report:
    """Begin no jobs of kinds, in whatever queue; running jobs go on."""
    end = pause_end(for_, until)
    async with opened(call) as forge:
        await forge.kinds.require(kinds)  # so that one unknown kind changes nothing
        paused = [await forge.kinds.pause(kind, until=end, why=why) for kind in kinds]
    return Report(
        [document(kind) for kind in paused],
        [f"Kind {kind.kind!r} is paused{until_when(kind.until)}." for kind in paused],
    )


@command(group, "resume")
async def resume(call: Call, kinds: Names) -> Report:
    """Begin jobs of kinds again."""
    async with opened(call) as forge:
        return resumed("kind", {kind: await forge.kinds.resume(kind) for kind in kinds})


@command(group, "forget")
async def forget(call: Call, kind: Name) -> Report:
    """Forget what was declared of a kind that no program has any more."""
    async with opened(call) as forge:
        was_declared = await forge.kinds.forget(kind)
    return Report(
        {"kind": kind, "forgotten": was_declared},
        [f"Kind {kind!r} is forgotten." if was_declared else f"Kind {kind!r} was not declared."],
    )


def _document(pause: PausedKind | None) -> object:
    return None if pause is None else document(pause)


def _rows(
    kinds: Sequence[Kind], paused: Mapping[str, PausedKind], workers: Mapping[str, int], now: datetime
) -> Rows:
    columns = ["kind", "state", "workers", "queue", "priority", "attempts", "timeout", "owner", "title"]
    cells = [
        [
            kind.kind,
            _state(paused.get(kind.kind), now),
            str(workers[kind.kind]),
            kind.queue or "",
            "" if kind.priority is None else str(kind.priority),
            "" if kind.max_attempts is None else values.shown_most(kind.max_attempts),
            "" if kind.timeout is None else in_words(kind.timeout),
            kind.owner or "",
            kind.title or "",
        ]
        for kind in kinds
    ]
    return Rows(columns, cells, "No kinds.", frozenset({"workers", "priority", "attempts"}))


def _state(pause: PausedKind | None, now: datetime) -> str:
    return state_of(pause is not None, None if pause is None else pause.until, now)

"""`forge-jobs groups`: groups of jobs, of which only so many run at once."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.pause import For, Until, Why, pause_end, resumed, state_of, until_when
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.model.group import MOST_PLACES, GroupStatus

group = CommandGroup(help="Look at groups of jobs, set their limits, and pause them.")

Name = Annotated[str, Argument(help="The group's name.", metavar="GROUP")]
Names = Annotated[list[str], Argument(help="Names of groups.", metavar="GROUP...")]


@command(group, "list")
async def list_groups(
    call: Call,
    limit: Annotated[
        int,
        Option(metavar="N", help="Show this many.", parser=values.whole("--limit", least=1, most=10_000)),
    ] = 100,
) -> Report:
    """List the groups that are in use or paused, or whose limit was set."""
    async with opened(call) as forge:
        groups = await forge.groups.list(limit=limit)
        now = await forge.storage.now()
    return Report([document(one) for one in groups], [_rows(groups, now)])


@command(group, "show")
async def show(call: Call, name: Name) -> Report:
    """Show how many jobs of a group have a place, and how many are blocked."""
    async with opened(call) as forge:
        found = await forge.groups.get(name)
        now = await forge.storage.now()
    return Report(document(found), [_rows([found], now)])


@command(group, "set")
async def set_group(
    call: Call,
    name: Name,
    limit: Annotated[
        int,
        Option(
            metavar="N",
            help="How many of its jobs may be pending or in progress at once.",
            parser=values.whole("--limit", least=1, most=MOST_PLACES),
        ),
    ],
) -> Report:
    """Set the limit of a group, whatever its jobs say. Jobs for which there is a place now are pending at once."""
    async with opened(call) as forge:
        found = await forge.groups.set(name, limit)
        now = await forge.storage.now()
    assert found is not None  # its limit keeps it
    return Report(document(found), [_rows([found], now)])


@command(group, "unset")
async def unset(call: Call, name: Name) -> Report:
    """Take back what was set: the limit that its jobs say holds again."""
    async with opened(call) as forge:
        found = await forge.groups.set(name, None)
        now = await forge.storage.now()
    if found is None:
        return Report({"name": name, "used": False}, [f"Group {name!r} is not in use."])
    return Report(document(found), [_rows([found], now)])


@command(group, "pause")
async def pause(call: Call, groups: Names, for_: For = None, until: Until = None, why: Why = None) -> Report:
    """Begin no jobs of groups, in whatever queue; running jobs go on, and those that come are blocked."""
    end = pause_end(for_, until)
    async with opened(call) as forge:
        paused = [await forge.groups.pause(name, until=end, why=why) for name in groups]
    return Report(
        [document(one) for one in paused],
        [f"Group {one.name!r} is paused{until_when(one.paused_until)}." for one in paused],
    )


@command(group, "resume")
async def resume(call: Call, groups: Names) -> Report:
    """Begin jobs of groups again."""
    async with opened(call) as forge:
        return resumed("group", {name: await forge.groups.resume(name) for name in groups})


def _rows(groups: Sequence[GroupStatus], now: datetime) -> Rows:
    columns = ["group", "state", "limit", "set", "occupants", "blocked"]
    rows = [
        [
            one.name,
            state_of(one.paused, one.paused_until, now),
            f"{one.limit:,}",
            "" if one.set_limit is None else f"{one.set_limit:,}",
            f"{one.occupants:,}",
            f"{one.blocked:,}",
        ]
        for one in groups
    ]
    return Rows(columns, rows, "No groups.", frozenset({"limit", "set", "occupants", "blocked"}))

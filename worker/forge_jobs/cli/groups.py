"""`forge-jobs groups`: groups of jobs, of which only so many run at once."""

from collections.abc import Sequence
from typing import Annotated

import typer

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.output import Report, Rows
from forge_jobs.client.document import document
from forge_jobs.model.group import MOST_PLACES, GroupStatus

group = typer.Typer(help="Look at groups of jobs, and set their limits.")

Name = Annotated[str, typer.Argument(help="The group's name.", metavar="GROUP")]


@command(group, "list")
async def list_groups(
    call: Call,
    limit: Annotated[
        int,
        typer.Option(
            metavar="N", help="Show this many.", parser=values.whole("--limit", least=1, most=10_000)
        ),
    ] = 100,
) -> Report:
    """List the groups that are in use, or whose limit was set."""
    async with opened(call) as forge:
        groups = await forge.groups.list(limit=limit)
    return Report([document(one) for one in groups], [_rows(groups)])


@command(group, "show")
async def show(call: Call, name: Name) -> Report:
    """Show how many jobs of a group have a place, and how many are blocked."""
    async with opened(call) as forge:
        found = await forge.groups.get(name)
    return Report(document(found), [_rows([found])])


@command(group, "set")
async def set_group(
    call: Call,
    name: Name,
    limit: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="How many of its jobs may be pending or in progress at once.",
            parser=values.whole("--limit", least=1, most=MOST_PLACES),
        ),
    ],
) -> Report:
    """Set the limit of a group, whatever its jobs say. Jobs for which there is a place now are pending at once."""
    async with opened(call) as forge:
        found = await forge.groups.set(name, limit)
    assert found is not None  # its limit keeps it
    return Report(document(found), [_rows([found])])


@command(group, "unset")
async def unset(call: Call, name: Name) -> Report:
    """Take back what was set: the limit that its jobs say holds again."""
    async with opened(call) as forge:
        found = await forge.groups.set(name, None)
    if found is None:
        return Report({"name": name, "used": False}, [f"Group {name!r} is not in use."])
    return Report(document(found), [_rows([found])])


def _rows(groups: Sequence[GroupStatus]) -> Rows:
    columns = ["group", "limit", "set", "occupants", "blocked"]
    rows = [
        [
            one.name,
            f"{one.limit:,}",
            "" if one.set_limit is None else f"{one.set_limit:,}",
            f"{one.occupants:,}",
            f"{one.blocked:,}",
        ]
        for one in groups
    ]
    return Rows(columns, rows, "No groups.", frozenset({"limit", "set", "occupants", "blocked"}))

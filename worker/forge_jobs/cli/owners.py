"""`forge-jobs owners`: who manages configuration, and how to get it back from an owner that is gone."""

from collections.abc import Sequence
from typing import Annotated

from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.model.owner import Owner

group = CommandGroup(help="See who manages queues, crons and rate limits, and take them back.")

Name = Annotated[
    str, Argument(help="The owner, as the list names it: 'ForgeQueue shop/mail'.", metavar="OWNER")
]


@command(group, "list")
async def list_owners(call: Call) -> Report:
    """List owners and what each manages."""
    async with opened(call) as forge:
        owners = await forge.owners.list()
    return Report([document(owner) for owner in owners], [_rows(owners)])


@command(group, "dismiss")
async def dismiss(call: Call, name: Name) -> Report:
    """Dismiss an owner that was deleted: nobody manages what it managed. An owner that still exists takes it back."""
    async with opened(call) as forge:
        owner = await forge.owners.dismiss(name)
    held = [*owner.queues, *owner.limits, *owner.crons]
    return Report(document(owner), [f"Nobody manages {', '.join(held)} any more."])


def _rows(owners: Sequence[Owner]) -> Rows:
    cells = [
        [owner.name, *(",".join(held) for held in (owner.queues, owner.limits, owner.crons))]
        for owner in owners
    ]
    return Rows(["owner", "queues", "rate limits", "crons"], cells, "Nobody manages anything.")

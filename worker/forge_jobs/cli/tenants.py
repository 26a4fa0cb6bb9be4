"""`forge-jobs tenants`: on whose behalf jobs are done, and how many turns each tenant of a queue has."""

from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.model.queue import DEFAULT_QUEUE

group = CommandGroup(help="Look at the tenants of queues, and set their weights.")

Name = Annotated[str, Argument(help="The tenant's name.", metavar="TENANT")]
Queue = Annotated[str, Option(metavar="NAME", help="The queue in which it holds.")]


@command(group, "list")
async def list_tenants(
    call: Call,
    queue: Annotated[str | None, Option(metavar="NAME", help="Only those of this queue.")] = None,
    limit: Annotated[
        int,
        Option(metavar="N", help="Show this many.", parser=values.whole("--limit", least=1, most=10_000)),
    ] = 100,
) -> Report:
    """List the tenants that have turns before them, those with most jobs first, or a weight of their own."""
    async with opened(call) as forge:
        found = await forge.tenants.list(queue=queue, limit=limit)
    rows = [[one.queue, one.tenant, f"{one.weight:g}", f"{one.waiting:,}"] for one in found]
    columns = ["queue", "tenant", "weight", "waiting"]
    return Report(
        [document(one) for one in found],
        [Rows(columns, rows, "No tenants.", frozenset({"weight", "waiting"}))],
    )


@command(group, "set")
async def set_weight(
    call: Call,
    name: Name,
    weight: Annotated[
        float,
        Option(metavar="X", help="How many turns it has for each one of a tenant of weight 1."),
    ],
    queue: Queue = DEFAULT_QUEUE,
) -> Report:
    """Set the weight of a tenant in a queue, for jobs that get their turns from now on."""
    async with opened(call) as forge:
        await forge.tenants.set_weight(name, weight, queue=queue)
    said = {"queue": queue, "tenant": name, "weight": weight}
    return Report(said, [f"Tenant {name!r} has weight {weight:g} in queue {queue!r}."])


@command(group, "unset")
async def unset(call: Call, name: Name, queue: Queue = DEFAULT_QUEUE) -> Report:
    """Take back what was set: the tenant has weight 1 again."""
    async with opened(call) as forge:
        changed = await forge.tenants.set_weight(name, None, queue=queue)
    said = {"queue": queue, "tenant": name, "weight": 1.0, "changed": changed}
    had = "has weight 1 again" if changed else "had no weight of its own"
    return Report(said, [f"Tenant {name!r} {had} in queue {queue!r}."])

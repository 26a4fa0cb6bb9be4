"""`forge-jobs interventions`: what people have done by hand, and who they were."""

from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document

Of = Annotated[
    str | None,
    Option(
        "--of",
        metavar="SUBJECT",
        help="Only what was done to this: 'queue NAME', 'kind NAME', 'group NAME', 'worker LABEL', 'flow ID', 'operation ID', "
        "'cron NAME', 'limit NAME', 'tenant NAME' or 'owner NAME'.",
    ),
]
Limit = Annotated[
    int, Option(metavar="N", parser=values.whole("--limit", least=1, most=10_000), help="How many at most.")
]


def register(app: CommandGroup) -> None:
    """The command is one of the app's."""
    command(app, "interventions")(interventions)


async def interventions(call: Call, of: Of = None, limit: Limit = 100) -> Report:
    """List what people have done by hand, the newest first. For one job: forge-jobs jobs history."""
    async with opened(call) as forge:
        done = await forge.interventions.list(subject=of, limit=limit)
    cells = [
        [
            f"{one.at:%Y-%m-%d %H:%M:%S}",
            one.subject or f"job {one.job_id}",
            one.what.value,
            one.note or "",
            one.by if one.role is None else f"{one.by} (role {one.role})",
        ]
        for one in done
    ]
    rows = Rows(["at", "to", "what", "note", "by"], cells, "Nobody has done anything by hand.")
    return Report([document(one) for one in done], [rows])

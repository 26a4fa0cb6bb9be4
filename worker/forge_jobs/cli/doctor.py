"""`forge-jobs doctor`: what is wrong with the database, and how it is mended."""

from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import forge_of, require_file
from forge_jobs.cli.options import CommandGroup
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.doctor import examine
from forge_jobs.client.document import document
from forge_jobs.errors import SchemaOutdated
from forge_jobs.model.checkup import Checkup, Health


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "doctor")(doctor)


async def doctor(call: Call) -> Report:
    """Look at the database as a worker meets it: migrations, rights, pooler, clock, LISTEN, workers. Exit code 1 when something is wrong."""
    import platform  # both here, since no other command needs them
    from importlib.metadata import version

    forge = forge_of(call)
    versions = f"forge-jobs {version('forge-jobs')}, Python {platform.python_version()}, {platform.system()}"
    checkups = [Checkup("versions", Health.FINE, versions)]
    try:
        require_file(forge.storage.url)
    except SchemaOutdated as error:
        checkups.append(Checkup("database", Health.WRONG, str(error), "Run: forge-jobs db migrate"))
    else:
        checkups += await examine(forge)
    rows = [[checkup.name, checkup.health.value, checkup.found] for checkup in checkups]
    remedies = [f"{checkup.name}: {checkup.remedy}" for checkup in checkups if checkup.remedy]
    wrong = [checkup.name for checkup in checkups if checkup.health is Health.WRONG]
    return Report(
        [document(checkup) for checkup in checkups],
        [Rows(["", "state", "found"], rows), *remedies],
        [f"Something is wrong: {', '.join(wrong)}."] if wrong else [],
    )

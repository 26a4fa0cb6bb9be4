"""`forge-jobs db`: the tables themselves."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

import click

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import forge_of, opened, require_file, say_caveat
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.progress import progress
from forge_jobs.cli.table import Rows
from forge_jobs.errors import InvalidInput
from forge_jobs.model.facts import SchemaStatus
from forge_jobs.model.finding import Finding
from forge_jobs.rules.words import count
from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.interface.storage import Storage

group = CommandGroup(help="Create, migrate and look at the database.")

PATIENCE = timedelta(minutes=10)

Role = Annotated[str, Argument(help="The name of the role on the server.", metavar="ROLE")]
As = Annotated[
    Purpose,
    Option(
        "--as",
        metavar="enqueuer|worker|reader|signaller",
        help="What the role may do. enqueuer: only enqueue; worker: all that workers do; reader: look, and change nothing; "
        "signaller: only send signals to jobs.",
        parser=values.one_of("--as", Purpose),
    ),
]

Force = Annotated[bool, Option("--force", help="Confirm that all jobs and all history are deleted.")]

Repair = Annotated[bool, Option("--repair", help="Repair what can be repaired, and say how.")]
DeleteStateless = Annotated[
    bool,
    Option(
        "--delete-stateless",
        help="With --repair: delete jobs that are in no state. Without it they become pending and run again.",
    ),
]


@command(group, "create")
async def create(call: Call) -> Report:
    """Create the database if it does not exist: CREATE DATABASE, or the SQLite file and its folder."""
    storage = forge_of(call).storage
    try:
        await storage.schema.create()
    finally:
        await storage.close()
    return Report({"database": storage.url, "created": True}, [f"{storage.url} exists."])


@command(group, "migrate")
async def migrate(call: Call) -> Report:
    """Migrate the tables to this release. Safe to run again, by several at once, and while workers run.

    It waits up to ten minutes for locks that others hold, and workers go on meanwhile.
    """
    async with _opened(call, create=True) as storage:
        applied = await storage.schema.migrate(patience=PATIENCE, waits=_say)
        status = await storage.schema.status()
    done = f"{count(applied, 'migration')} applied" if applied else "nothing to do"
    return Report(
        {"database": storage.url, "applied": applied, **_document(status)},
        [f"{storage.url} is at migration {status.found}: {done}."],
    )


@command(group, "status")
async def status(call: Call) -> Report:
    """Show which migration the database is at, and which this release needs."""
    async with _opened(call) as storage:
        standing = await storage.schema.status()
    rows = Rows(
        ["database", "server", "migration", "needed", "state"],
        [[storage.url, standing.server, str(standing.found), str(standing.known), _standing(standing)]],
    )
    return Report({"database": storage.url, **_document(standing)}, [rows])


@command(group, "check")
async def check(call: Call, repair: Repair = False, delete_stateless: DeleteStateless = False) -> Report:
    """Look for rows that contradict each other, such as a job in two states or in none, while workers run. Exit code 1 when something is wrong."""
    if delete_stateless and not repair:
        raise InvalidInput("--delete-stateless changes what a repair does; pass --repair too.")
    tally = _Findings()
    async with opened(call) as forge:
        audit = forge.storage.audit
        with progress(as_json=call.as_json) as tell:
            async for look in audit.jobs(repair=repair, forget=delete_stateless):
                tally.add(look.findings, jobs=look.jobs)
                tell(f"{count(tally.jobs, 'job')} looked at", {"jobs": tally.jobs, "found": tally.found})
            tally.add(await audit.slots(repair=repair))
            tally.add(await audit.groups(repair=repair))
            tally.add(await audit.counts(repair=repair))
    return tally.report(repair)


@command(group, "grants")
async def grants(call: Call, role: Role, purpose: As) -> Report:
    """Print the SQL by which the owner of the tables grants a role the rights that --as names, and no others. PostgreSQL only."""
    statements = forge_of(call).storage.schema.grants(role, purpose)
    return Report(
        {"role": role, "as": purpose.value, "statements": list(statements)}, ["\n".join(statements)]
    )


@command(group, "drop")
async def drop(call: Call, force: Force = False) -> Report:
    """Delete all tables of forge-jobs from the database, with all jobs and history. Needs --force."""
    _require_force(force, "drop")
    async with _opened(call) as storage:
        await storage.schema.drop()
    return Report(
        {"database": storage.url, "dropped": True}, [f"Nothing of forge-jobs is left in {storage.url}."]
    )


@command(group, "reset")
async def reset(call: Call, force: Force = False) -> Report:
    """Drop the tables and make them anew, empty. Needs --force."""
    _require_force(force, "reset")
    async with _opened(call, create=True) as storage:
        await storage.schema.drop()
        await storage.schema.migrate()
        standing = await storage.schema.status()
    return Report(
        {"database": storage.url, "reset": True, **_document(standing)},
        [f"{storage.url} is empty, and at migration {standing.found}."],
    )


SHOWN = 1_000
"""Findings that are said one by one; where a table was emptied there may be millions."""


@dataclass(slots=True)
class _Findings:
    """What a check found so far."""

    jobs: int = 0
    found: int = 0
    mended: int = 0
    shown: list[Finding] = field(default_factory=list)

    def add(self, findings: Sequence[Finding], *, jobs: int = 0) -> None:
        """These were found among so many jobs."""
        self.jobs += jobs
        self.found += len(findings)
        self.mended += sum(finding.mended is not None for finding in findings)
        self.shown += findings[: SHOWN - len(self.shown)]

    def report(self, repair: bool) -> Report:
        """Return what the command says."""
        lines = [f"{finding.found} {finding.mended or ''}".rstrip() for finding in self.shown]
        if self.found > len(lines):
            lines.append(f"And {self.found - len(lines):,} more.")
        left = self.found - self.mended
        mended = f"{count(self.mended, 'contradiction')} mended" if self.mended else "nothing is wrong"
        if self.mended or not left:
            lines.append(f"{count(self.jobs, 'job')} looked at; {mended}.")
        hint = "" if repair else "; to mend them: forge-jobs db check --repair"
        errors = [f"{count(left, 'contradiction')} in the database{hint}."] if left else []
        document = {"jobs": self.jobs, "found": self.found, "mended": self.mended}
        return Report(
            document | {"findings": [_document_of(finding) for finding in self.shown]}, lines, errors
        )


def _document_of(finding: Finding) -> dict[str, object]:
    return {
        "fault": finding.fault.value,
        "job_id": finding.job_id,
        "found": finding.found,
        "mended": finding.mended,
    }


def _say(why: str, retry_in: float) -> None:
    click.echo(f"{why} Next try in {retry_in:.0f} s.", err=True)


def _require_force(force: bool, verb: str) -> None:
    if not force:
        raise InvalidInput(f"forge-jobs db {verb} deletes all jobs and all history; confirm with --force.")


@asynccontextmanager
async def _opened(call: Call, *, create: bool = False) -> AsyncIterator[Storage]:
    """The storage is open, whatever its schema is. A SQLite file is made when `create` says so, a server's database never."""
    storage = forge_of(call).storage
    try:
        if not create:
            require_file(storage.url)
        elif not storage.shared:
            await storage.schema.create()
        await storage.open()
        say_caveat(call, storage)
        yield storage
    finally:
        await storage.close()


def _standing(status: SchemaStatus) -> str:
    if not status.found:
        return "not migrated"
    if status.found < status.known:
        return "outdated"
    if status.required > status.known:
        return "too new for this release"
    return "up to date" if status.found == status.known else "newer, and this release works with it"


def _document(status: SchemaStatus) -> dict[str, object]:
    return {
        "server": status.server,
        "found": status.found,
        "known": status.known,
        "up_to_date": status.found == status.known,
        "works": status.required <= status.known <= status.found,
    }

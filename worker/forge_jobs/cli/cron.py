"""`forge-jobs cron`: schedules, edited at run time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from forge_jobs.cli import grouped, values
from forge_jobs.cli.asking import DryRun
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.grouped import GroupLimit, WhenFull
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.errors import InvalidCron
from forge_jobs.forge import Forge
from forge_jobs.handlers.cron_options import MOST_MISSED, CronValues
from forge_jobs.model.cron import CronChange, CronConfig, LoadedCron, Missed
from forge_jobs.model.job import KEY_MODES, Enqueued, KeyMode
from forge_jobs.model.redaction import Redacted
from forge_jobs.rules.cron_times import parse
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.names import LARGEST_PRIORITY, SMALLEST_PRIORITY

group = CommandGroup(help="Look at crons, set, trigger and delete them.")

Name = Annotated[str, Argument(help="The cron's name.", metavar="NAME")]


@command(group, "list")
async def list_crons(call: Call) -> Report:
    """List crons, where they come from, when they fire next, and why one does not fire."""
    async with opened(call) as forge:
        crons = await forge.crons.list()
        origins = await forge.crons.origins()
        hidden, now = await _hidden(forge), await forge.storage.now()
    return Report([_document(cron, hidden, origins) for cron in crons], [_rows(crons, origins, now)])


@command(group, "set")
async def set_cron(
    call: Call,
    name: Name,
    expression: Annotated[
        str,
        Argument(
            help="Five fields like '*/5 * * * *', six with seconds first, or @daily.", metavar="EXPRESSION"
        ),
    ],
    kind: Annotated[str, Option(metavar="KIND", help="The kind of job that it enqueues.")],
    payload: Annotated[
        str | None, Option(metavar="JSON", help="The job's arguments, an object, or an array of items.")
    ] = None,
    timezone: Annotated[str, Option(metavar="ZONE", help="An IANA name, like Europe/Berlin.")] = "UTC",
    queue: Annotated[
        str | None,
        Option(metavar="NAME", help="The queue of its jobs. [default: as the handler says, or default]"),
    ] = None,
    priority: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Jobs of smaller numbers start first. [default: as the handler says, or 0]",
            parser=values.whole("--priority", least=SMALLEST_PRIORITY, most=LARGEST_PRIORITY),
        ),
    ] = None,
    max_attempts: Annotated[
        str | None,
        Option(
            metavar="N|forever",
            help="How many attempts its jobs may have. [default: as the handler or the queue says]",
        ),
    ] = None,
    timeout: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--timeout"),
            help="How long an attempt may take. [default: as the handler or the queue says]",
        ),
    ] = None,
    start_by: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--start-by"),
            help="Its jobs expire unless they begin within this time.",
        ),
    ] = None,
    deadline: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--deadline"),
            help="Its jobs are stopped, and dead, unless they end within this time.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        Option(
            metavar="KEY",
            help="The key of its jobs: of a kind at most one that has not ended has it. '': none.",
        ),
    ] = None,
    key_mode: Annotated[
        KeyMode | None,
        Option(
            metavar="MODE",
            parser=values.key_mode,
            help=f"What to do when a job has the key: {', '.join(KEY_MODES)}. [default: dedupe]",
        ),
    ] = None,
    tag: Annotated[
        list[str] | None, Option(metavar="TAG", help="A tag of its jobs; may be given several times.")
    ] = None,
    group: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help="The group of its jobs: of the jobs of a group only so many run at once, one unless it is said. '': none.",
        ),
    ] = None,
    group_limit: GroupLimit = None,
    overflow: WhenFull = None,
    tenant: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help="On whose behalf its jobs are: the tenants of a queue take turns. '': nobody's.",
        ),
    ] = None,
    overlap: Annotated[
        bool,
        Option("--overlap/--no-overlap", help="Whether the cron fires while its last job has not ended."),
    ] = True,
    missed: Annotated[
        Missed,
        Option(
            metavar="|".join(Missed),
            help="Which fire times to make up for after a time without workers: skip, latest or all.",
            parser=values.one_of("--missed", Missed),
        ),
    ] = (Missed.LATEST),
    missed_limit: Annotated[
        int,
        Option(
            metavar="N",
            help="With --missed all: how many fire times to make up for at most, newest first.",
            parser=values.whole("--missed-limit", least=1, most=MOST_MISSED),
        ),
    ] = 100,
    missed_within: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--missed-within"),
            help="Fire times that are older are not made up for. [default: however old]",
        ),
    ] = None,
    enabled: Annotated[bool, Option("--enabled/--disabled", help="Whether the cron fires.")] = True,
) -> Report:
    """Create a cron, or replace the whole configuration of the cron of that name."""
    wanted: CronValues = {
        "payload": values.payload(payload),
        "timezone": timezone,
        "overlap": overlap,
        "missed": missed,
        "missed_limit": missed_limit,
        "enabled": enabled,
    }
    if queue is not None:
        wanted["queue"] = queue
    if priority is not None:
        wanted["priority"] = priority
    if max_attempts is not None:
        wanted["max_attempts"] = values.attempts(max_attempts)
    if timeout is not None:
        wanted["timeout"] = timeout
    if start_by is not None:
        wanted["start_by"] = start_by
    if deadline is not None:
        wanted["deadline"] = deadline
    if key is not None:
        wanted["key"] = key or None
    if key_mode is not None:
        wanted["key_mode"] = key_mode
    if (said := grouped.said(group, group_limit, overflow)) is not None:
        wanted["group"] = said
    if tenant is not None:
        wanted["tenant"] = tenant or None
    if tag:
        wanted["tags"] = tag
    if missed_within is not None:
        wanted["missed_within"] = missed_within
    async with opened(call) as forge:
        cron = await forge.crons.set(name, expression, kind, **wanted)
        origins = await forge.crons.origins()
        hidden, now = await _hidden(forge), await forge.storage.now()
    return Report(_document(cron, hidden, origins), [_rows([cron], origins, now)])


@command(group, "load")
async def load(
    call: Call,
    file: Annotated[str, Argument(help="The crontab; - is standard input.", metavar="FILE")],
    owner: Annotated[
        str | None,
        Option(metavar="NAME", help="To whom its crons belong. [default: crontab: and the file's name]"),
    ] = None,
    prune: Annotated[
        bool,
        Option(
            "--prune",
            help="Delete crons of this owner that are not in the file any more, but for those that a worker's code declares.",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> Report:
    """Configure the crons of a crontab file, a cron a line; nothing else may change them then."""
    text = values.content(file, "FILE")
    owner = owner or f"crontab:{'-' if file == '-' else Path(file).name}"
    async with opened(call) as forge:
        loaded = await forge.crons.load(text, owner=owner, prune=prune, dry_run=dry_run)
    notes = ["Nothing was changed."] if dry_run else []
    if any(cron.change is CronChange.LEFT for cron in loaded):
        notes.append("Crons that are left are not in the file any more; --prune deletes them.")
    return Report([document(cron) for cron in loaded], [_loaded(loaded), *notes])


@command(group, "enable")
async def enable(call: Call, name: Name) -> Report:
    """Let a cron fire from now on."""
    async with opened(call) as forge:
        cron, hidden = await forge.crons.enable(name), await _hidden(forge)
    return Report(_document(cron, hidden), [f"Cron {cron.name!r} is enabled."])


@command(group, "disable")
async def disable(call: Call, name: Name) -> Report:
    """Keep a cron from firing."""
    async with opened(call) as forge:
        cron, hidden = await forge.crons.disable(name), await _hidden(forge)
    return Report(_document(cron, hidden), [f"Cron {cron.name!r} is disabled."])


@command(group, "trigger")
async def trigger(call: Call, name: Name) -> Report:
    """Enqueue one job of a cron now; its schedule does not change."""
    async with opened(call) as forge:
        job = await forge.crons.trigger(name)
        is_held = job.duplicate and (await forge.crons.get(name)).hold is not None
    return Report(document(job), [_triggered(job, is_held=is_held)])


def _triggered(job: Enqueued, *, is_held: bool) -> str:
    if job.dropped and not job.duplicate:
        return f"The group of the cron has no place for job {job.id}, which is dead."
    if job.dropped:
        return f"The group of the cron has no place, job {job.id} has it; no other is enqueued."
    if is_held:
        return f"Job {job.id} is enough for the time within which its jobs are unique; no other is enqueued."
    if job.duplicate:
        return f"Job {job.id} has not ended; no other is enqueued."
    if job.replaced:
        return f"Job {job.id}, which waits, is replaced; no other is enqueued."
    return f"Job {job.id} is enqueued."


@command(group, "delete")
async def delete(call: Call, name: Name) -> Report:
    """Delete a cron; its jobs stay."""
    async with opened(call) as forge:
        await forge.crons.delete(name)
    return Report({"name": name, "deleted": True}, [f"Cron {name!r} is deleted."])


def _loaded(crons: Sequence[LoadedCron]) -> Rows:
    rows = [[cron.name, cron.change, cron.expression, cron.kind] for cron in crons]
    return Rows(["cron", "change", "expression", "kind"], rows, "No crons.")


async def _hidden(forge: Forge) -> Mapping[str, Redacted]:
    """Return what is redacted of the jobs of each kind."""
    return {kind.kind: kind.redact for kind in await forge.kinds.list()}


def _document(
    cron: CronConfig, hidden: Mapping[str, Redacted], origins: Mapping[str, str] | None = None
) -> dict[str, Any]:
    shown = document(cron, redacted=hidden.get(cron.kind, False))
    return shown if origins is None else {**shown, "from": origins.get(cron.name)}


def _rows(crons: Sequence[CronConfig], origins: Mapping[str, str], now: datetime) -> Rows:
    columns = [
        "cron",
        "state",
        "expression",
        "zone",
        "kind",
        "queue",
        "from",
        "next",
        "last",
        "skipped",
        "error",
    ]
    rows = [_row(cron, origins.get(cron.name, ""), now) for cron in crons]
    place = columns.index("queue") + 1
    for name, cells in reversed(_of_jobs(crons).items()):
        if any(cells):  # few crons have any of them, and a table has to find room in a terminal
            columns.insert(place, name)
            for row, cell in zip(rows, cells, strict=True):
                row.insert(place, cell)
    return Rows(columns, rows, "No crons.", frozenset({"skipped"}))


def _of_jobs(crons: Sequence[CronConfig]) -> dict[str, list[str]]:
    """Return what the crons say of their jobs, a cell a cron, by the name of the column."""
    holds = [cron.job().hold for cron in crons]
    return {
        "group": [", ".join(group.name for group in cron.group) for cron in crons],
        "tenant": [cron.tenant or "" for cron in crons],
        "unique": ["" if hold is None else f"for {in_words(hold.within)}" for hold in holds],
    }


def _row(cron: CronConfig, origin: str, now: datetime) -> list[str]:
    last = "never" if cron.last_fire_at is None else f"{values.since(cron.last_fire_at, now)} ago"
    return [
        cron.name,
        "enabled" if cron.enabled else "disabled",
        cron.expression,
        cron.timezone,
        cron.kind,
        cron.queue,
        origin,
        values.until(_next(cron, now), now) if cron.enabled else "-",
        last,
        f"{cron.skipped:,}",
        values.shortened(cron.last_error or ""),
    ]


def _next(cron: CronConfig, now: datetime) -> datetime | None:
    """Return when the cron fires next, also before a worker has written that down."""
    if cron.next_fire_at is not None:
        return cron.next_fire_at
    try:
        return parse(cron.expression, cron.timezone).next_after(now)
    except InvalidCron:
        return None

"""`forge-jobs enqueue`: make a job by name; no handler need be there."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, cast

from forge_jobs.cli import grouped, values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.grouped import GroupLimit, WhenFull
from forge_jobs.cli.jobs import ended
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report, print_warning
from forge_jobs.client.document import document
from forge_jobs.errors import ForgeError, InvalidInput, StorageUnavailable
from forge_jobs.forge import Forge
from forge_jobs.handlers.options import OptionValues
from forge_jobs.handlers.unique import CONFLICTS, EDGES, Unique
from forge_jobs.model.job import KEY_MODES, Enqueued, KeyMode
from forge_jobs.rules.names import LARGEST_PRIORITY, SMALLEST_PRIORITY

MOST_COPIES = 1_000_000
TOGETHER = 10_000


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "enqueue")(enqueue)


async def enqueue(
    call: Call,
    kind: Annotated[str, Argument(help="The kind of job: its handler's name.", metavar="KIND")],
    payload: Annotated[
        str | None,
        Argument(
            help='The arguments, a JSON object like \'{"to": "a@b"}\', or an array of items.',
            metavar="[JSON]",
        ),
    ] = None,
    payload_file: Annotated[
        str | None, Option(metavar="FILE", help="Read the arguments from a file; - is stdin.")
    ] = None,
    lines: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Enqueue a job for each line of a file, the JSON of its arguments; - is stdin.",
        ),
    ] = None,
    queue: Annotated[
        str | None, Option(metavar="NAME", help="Its queue. [default: as the handler says, or default]")
    ] = None,
    delay: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--delay"),
            help="Run it after this time, like 90s, 5m, 2h or 7d.",
        ),
    ] = None,
    run_at: Annotated[
        str | None,
        Option(metavar="TIME", help="Run it at an ISO 8601 time; UTC when it names no zone."),
    ] = None,
    priority: Annotated[
        int | None,
        Option(
            metavar="N",
            parser=values.whole("--priority", least=SMALLEST_PRIORITY, most=LARGEST_PRIORITY),
            help="Jobs of smaller numbers start first. [default: as the handler says, or 0]",
        ),
    ] = None,
    max_attempts: Annotated[
        str | None,
        Option(
            metavar="N|forever",
            help="How many attempts the job may have. [default: as the handler or the queue says]",
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
        str | None,
        Option(
            metavar="TIME|DURATION",
            help="It expires unless it begins by this ISO 8601 time, or within this time of when it is due.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        Option(
            metavar="TIME|DURATION",
            help="It is stopped, and dead, unless it ends by this ISO 8601 time, or within this time of when it is due.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help="Deduplicate: while a job of this kind with this key has not ended, enqueue no other. '': none.",
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
    unique_by: Annotated[
        str | None,
        Option(
            metavar="NAMES",
            help="Instead of a key: the arguments by which jobs are the same, like user,day; * is all of them.",
        ),
    ] = None,
    unique_within: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--unique-within"),
            help="For so long they are the same, whether they have ended or not. [default: until they have ended]",
        ),
    ] = None,
    debounce: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--debounce"),
            help="Run it once for so long no other one that is the same was enqueued.",
        ),
    ] = None,
    max_wait: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--max-wait"),
            help="But no later than this after the first one.",
        ),
    ] = None,
    edge: Annotated[
        str | None,
        Option(
            metavar="|".join(EDGES),
            help="With --debounce: whether the first one runs at once, and the others not, or the last one in the end. "
            "[default: trailing]",
        ),
    ] = None,
    latest: Annotated[
        bool,
        Option("--latest", help="While one of them runs, keep the last one waiting until that has ended."),
    ] = False,
    on_conflict: Annotated[
        str | None,
        Option(
            metavar="WHAT",
            help=f"What to do when one is there: {', '.join(CONFLICTS)}. [default: return]",
        ),
    ] = None,
    group: Annotated[
        str | None,
        Option(
            metavar="TEXT",
            help="Its group: of the jobs of a group only so many run at once, one unless it is said. '': none.",
        ),
    ] = None,
    group_limit: GroupLimit = None,
    overflow: WhenFull = None,
    tenant: Annotated[
        str | None,
        Option(
            metavar="TEXT", help="On whose behalf it is: the tenants of a queue take turns. '': nobody's."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        Option(metavar="TAG", help="A tag, by which the job can be found; may be given several times."),
    ] = None,
    count: Annotated[
        int,
        Option(
            metavar="N",
            help="How many copies of the job to enqueue.",
            parser=values.whole("--count", least=1, most=MOST_COPIES),
        ),
    ] = 1,
    wait: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--wait"),
            help="Wait up to this long for the job to end, then print its result instead of its id.",
        ),
    ] = None,
) -> Report:
    """Enqueue a job, or many, and print the id of each."""
    if wait is not None and count > 1:
        raise InvalidInput(f"--wait works with one job only, but --count is {count}.")
    if lines is not None:
        beside = {"the argument JSON": payload, "--payload-file": payload_file, "--wait": wait, "--key": key}
        _require_alone({**beside, "--count": None if count == 1 else count})
        arguments: Any = {}
        payloads = values.payloads(lines, "--lines")
    else:
        arguments = values.payload(values.text(payload, payload_file))
        payloads = [arguments] * count
    options: OptionValues = {}
    if queue is not None:
        options["queue"] = queue
    if delay is not None:
        options["delay"] = delay
    if run_at is not None:
        options["run_at"] = values.parse_moment(run_at)
    if priority is not None:
        options["priority"] = priority
    if max_attempts is not None:
        options["max_attempts"] = values.attempts(max_attempts)
    if timeout is not None:
        options["timeout"] = timeout
    if start_by is not None:
        options["start_by"] = values.limit(start_by, "--start-by")
    if deadline is not None:
        options["deadline"] = values.limit(deadline, "--deadline")
    if key is not None:
        options["key"] = key or None
    if key_mode is not None:
        options["key_mode"] = key_mode
    if unique := _unique(unique_by, unique_within, debounce, max_wait, edge, on_conflict, latest):
        options["unique"] = unique
    if (said := grouped.said(group, group_limit, overflow)) is not None:
        options["group"] = said
    if tenant is not None:
        options["tenant"] = tenant or None
    if tag:
        options["tags"] = tag
    async with opened(call, declares=True) as forge:
        if lines is None and count == 1:
            job = await forge.enqueue(kind, arguments, **options)
            return (
                _one(job, is_unique=unique is not None) if wait is None else await ended(forge, job.id, wait)
            )
        return _many(await _all(call, forge, kind, payloads, options))


async def _all(
    call: Call, forge: Forge, kind: str, payloads: Sequence[Any], options: OptionValues
) -> list[Enqueued]:
    """Jobs with these payloads are enqueued, so many in each transaction that no one is too long."""
    made: list[Enqueued] = []
    for begin in range(0, len(payloads), TOGETHER):
        part = payloads[begin : begin + TOGETHER]
        try:
            made += await forge.enqueue_many(kind, part, **options)
        except BaseException as error:
            is_known = isinstance(error, ForgeError) and not isinstance(error, StorageUnavailable)
            if made or not is_known:  # after Ctrl-C, say, this part may be committed or not
                more = "" if is_known else f", and perhaps the next {len(part):,}"
                print_warning(
                    f"The first {begin:,} jobs were enqueued before this{more}.", as_json=call.as_json
                )
            raise
    return made


def _require_alone(beside: Mapping[str, object]) -> None:
    for name, value in beside.items():
        if value is not None:
            raise InvalidInput(f"--lines is given together with {name}, allowed is one of them.")


def _unique(
    by: str | None,
    within: timedelta | None,
    debounce: timedelta | None,
    max_wait: timedelta | None,
    edge: str | None,
    on_conflict: str | None,
    latest: bool,
) -> Unique | None:
    if by is None:
        for name, value in (
            ("--unique-within", within),
            ("--debounce", debounce),
            ("--max-wait", max_wait),
            ("--edge", edge),
            ("--on-conflict", on_conflict),
            ("--latest", latest or None),
        ):
            if value is not None:
                raise InvalidInput(f"{name} is given and --unique-by is not, allowed is both.")
        return None
    names = None if by == "*" else tuple(name.strip() for name in by.split(","))
    conflict = cast(Any, on_conflict or "return")
    return Unique(names, within, conflict, debounce, max_wait, cast(Any, edge), latest)


def _one(job: Enqueued, *, is_unique: bool) -> Report:
    return Report(document(job), [f"{job.id}{_note(job, is_unique=is_unique)}"])


def _note(job: Enqueued, *, is_unique: bool) -> str:
    if job.dropped:
        whose = "; this job has it" if job.duplicate else " for it, and it is dead"
        return f" (dropped: the group has no place{whose})"
    other = ", with another payload" if job.payload_differs else ""
    if job.duplicate:
        why = "one is enough for now" if is_unique else "a job with this key has not ended"
        return f" (there already{other}: {why})"
    if job.replaced:
        return " (there already, and replaced)"
    return "" if job.supersedes is None else f" (job {job.supersedes} runs, and is not tried again)"


def _many(made: list[Enqueued]) -> Report:
    ids = sorted({job.id for job in made})
    return Report({"ids": ids, "enqueued": len(ids)}, ["\n".join(map(str, ids))])

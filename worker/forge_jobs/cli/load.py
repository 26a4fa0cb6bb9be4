"""`forge-jobs load`: enqueue jobs at a rate, and tell how long that and they took."""

from datetime import timedelta
from typing import Annotated, Any

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.progress import progress
from forge_jobs.cli.table import Rows
from forge_jobs.client.load import MOST_JOBS, MOST_PRODUCERS, MOST_TOGETHER, LoadReport, LoadRun, PlannedLoad
from forge_jobs.errors import InvalidInput
from forge_jobs.rules import names
from forge_jobs.rules.duration import in_words

QUEUE = "load"


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "load")(load)


async def load(
    call: Call,
    kind: Annotated[
        str, Argument(help="The kind of the jobs, like echo, which the built-in worker runs.", metavar="KIND")
    ],
    payload: Annotated[str | None, Argument(help="Their arguments, a JSON object.", metavar="[JSON]")] = None,
    rate: Annotated[
        float | None,
        Option(
            metavar="N",
            help="So many jobs a second. [default: as fast as it goes]",
            parser=values.rate("--rate"),
        ),
    ] = None,
    count: Annotated[
        int | None,
        Option(
            metavar="N", help="How many jobs in all.", parser=values.whole("--count", least=1, most=MOST_JOBS)
        ),
    ] = None,
    duration: Annotated[
        timedelta | None,
        Option(
            "--for",
            metavar="DURATION",
            help="Instead of a count: for so long, with --rate.",
            parser=values.duration("--for"),
        ),
    ] = None,
    together: Annotated[
        int,
        Option(
            metavar="N",
            help="How many jobs each call enqueues.",
            parser=values.whole("--together", least=1, most=MOST_TOGETHER),
        ),
    ] = 1,
    producers: Annotated[
        int,
        Option(
            metavar="N",
            help="How many calls may be on their way at once.",
            parser=values.whole("--producers", least=1, most=MOST_PRODUCERS),
        ),
    ] = 8,
    queue: Annotated[str, Option(metavar="NAME", help="Their queue, which is made.")] = QUEUE,
    tag: Annotated[str | None, Option(metavar="TEXT", help="A tag, by which to find them later.")] = None,
    wait: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            help="Wait until they have ended, at most so long, and tell how.",
            parser=values.duration("--wait"),
        ),
    ] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be enqueued, and do nothing.")] = False,
) -> Report:
    """Enqueue many jobs at a steady rate, and tell how long the calls took, and the jobs waited and ran.

    A call is timed from when it was due: a database that falls behind the rate shows it.
    """
    jobs = _count(count, rate, duration)
    options: dict[str, Any] = {"queue": names.queue(queue), **({"tags": [tag]} if tag else {})}
    plan = PlannedLoad(names.kind(kind), values.payload(payload), jobs, rate, together, producers, options)
    if dry_run:
        pace = "as fast as it goes" if rate is None else f"{rate:g} a second, {in_words(_lasts(jobs, rate))}"
        sentence = f"{jobs:,} jobs of kind {kind!r} would be enqueued to queue {queue!r}: {pace}."
        return Report({"jobs": jobs, "kind": kind, "queue": queue, "rate": rate}, [sentence])
    async with opened(call) as forge:
        await forge.queues.ensure(queue)
        with progress(as_json=call.as_json) as tell:

            def told(enqueued: int, ended: int) -> None:
                done = f", {ended:,} have ended" if ended else ""
                tell(
                    f"{enqueued:,} of {jobs:,} jobs are enqueued{done}.",
                    {"enqueued": enqueued, "ended": ended},
                )

            report = await LoadRun(forge, plan, told).run(wait=wait)
    return _shown(report)


def _count(count: int | None, rate: float | None, duration: timedelta | None) -> int:
    if duration is None:
        if count is None:
            raise InvalidInput("Neither --count nor --for is given, allowed is one of them.")
        return count
    if count is not None or rate is None:
        raise InvalidInput("--for goes with --rate, and without --count.")
    jobs = round(rate * duration.total_seconds())
    if not 1 <= jobs <= MOST_JOBS:
        raise InvalidInput(f"--rate and --for make {jobs:,} jobs, allowed are 1 to {MOST_JOBS:,}.")
    return jobs


def _lasts(jobs: int, rate: float) -> timedelta:
    return timedelta(seconds=jobs / rate)


def _shown(report: LoadReport) -> Report:
    document = {
        "enqueued": report.enqueued,
        "seconds": report.seconds,
        "rate": report.rate,
        "lost_calls": report.lost_calls,
        "states": report.states,
        "seconds_until_ended": report.seconds_until_ended,
        **{f"{name}_seconds": times for name, times in _times(report)},
    }
    lines = [
        f"{report.enqueued:,} jobs were enqueued in {report.seconds:.2f} s: {report.rate:,.0f} a second."
    ]
    if report.states:
        each = ", ".join(f"{jobs:,} {state}" for state, jobs in report.states.items())
        after = report.seconds_until_ended
        lines.append(
            f"Of these: {each}" + ("." if after is None else f", {after:.2f} s after the first call.")
        )
    columns = list(report.calls) or ["max"]
    rows = [
        [name, *(f"{times[column] * 1000:,.1f} ms" for column in columns)]
        for name, times in _times(report)
        if times
    ]
    errors = []
    if report.lost_calls:
        errors.append(f"{report.lost_calls:,} calls had no answer, the first: {report.error}")
    return Report(document, [*lines, Rows(["time", *columns], rows, "", frozenset(columns))], errors)


def _times(report: LoadReport) -> list[tuple[str, Any]]:
    return [("call", report.calls), ("waited", report.waited), ("ran", report.ran)]

"""What commands do to all jobs that match: they start an operation, show how far it is, and say what became of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.asking import counted, described, require_a_word, require_yes, would_be
from forge_jobs.cli.command import Call
from forge_jobs.cli.options import Option
from forge_jobs.cli.output import Report, print_warning
from forge_jobs.cli.progress import progress
from forge_jobs.client.document import document
from forge_jobs.client.job_filter import JobFilter, job_filter
from forge_jobs.client.operations import Bulk
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.forge import Forge
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import Operation, OperationState

All = Annotated[bool, Option("--all", help="All jobs that match the filters, instead of ids.")]
OfState = Annotated[
    State | None,
    Option(
        "--state",
        metavar="STATE",
        help=f"Only jobs in this state: {', '.join(State)}.",
        parser=values.one_of("--state", State),
    ),
]
OfQueue = Annotated[str | None, Option("--queue", metavar="NAME", help="Only jobs of this queue.")]
OfKind = Annotated[str | None, Option("--kind", metavar="KIND", help="Only jobs of this kind.")]
WithTags = Annotated[
    list[str] | None,
    Option("--tag", metavar="TAG", help="Only jobs with this tag; given several times, with all of them."),
]
WithKey = Annotated[str | None, Option("--key", metavar="KEY", help="Only jobs with this key.")]
InGroup = Annotated[str | None, Option("--group", metavar="NAME", help="Only jobs in this group.")]
NoWait = Annotated[
    bool,
    Option("--no-wait", help="Print the operation and leave it to the workers, instead of waiting for it."),
]
Rate = Annotated[
    float | None,
    Option("--rate", metavar="N", help="Retry so many jobs a second at most.", parser=values.rate("--rate")),
]


FILTERS = "--state, --queue, --kind, --key, --group, --tag"


def filter_of(
    queue: str | None,
    kind: str | None,
    key: str | None = None,
    group: str | None = None,
    tags: Sequence[str] | None = None,
) -> JobFilter:
    """Return which jobs these options mean. Raises InvalidInput."""
    return job_filter(queue, kind, key, group, tags or ())


def check_choice(
    ids: list[int] | None,
    all: bool,
    state: State | None,
    which: JobFilter,
    dry_run: bool,
    no_wait: bool,
) -> None:
    """Jobs are named by ids, or by --all with filters; a filter never narrows ids. Raises InvalidInput."""
    if bool(ids) == all:
        raise InvalidInput(f"Name the jobs: either by their ids, or with --all and the filters {FILTERS}.")
    if ids and (state or not which.is_all):
        raise InvalidInput(f"The filters {FILTERS} go with --all, not with ids.")
    if ids and dry_run:
        raise InvalidInput("--dry-run goes with --all, not with ids.")
    if ids and no_wait:
        raise InvalidInput("--no-wait goes with --all, not with ids.")


@dataclass(frozen=True, slots=True)
class BulkMove:
    """What is done to all jobs that match, and to which."""

    verb: str
    move: Move
    states: Sequence[State]
    which: JobFilter
    into: str | None = None
    priority: int | None = None
    rate: float | None = None

    async def do(
        self, call: Call, forge: Forge, *, yes: bool, dry_run: bool, no_wait: bool = False
    ) -> Report:
        """Return what became of all jobs that match, and show meanwhile how far it is; ask before, unless `yes`."""
        require_a_word(call, f"forge-jobs jobs {self.verb} --all", yes=yes, dry_run=dry_run)
        if not yes:
            counts = await counted(forge.jobs, self.states, self.which)
            what = described(counts, self.which)
            if dry_run:
                return would_be(counts, what, self.move.value)
            if any(counts.values()):
                require_yes(f"{self.verb.capitalize()} {what}?")
        operation = await forge.operations.start(
            self.move,
            state=self.states,
            **asdict(self.which),
            into=self.into,
            priority=self.priority,
            rate=self.rate,
        )
        if no_wait:
            return Report(
                document(operation), [f"Operation {operation.id} is begun: {described_of(operation)}."]
            )
        return await finished(call, forge, operation)


async def finished(call: Call, forge: Forge, operation: Operation) -> Report:
    """Return what became of an operation, and show meanwhile how far it is."""
    done = operation.move.value
    with progress(as_json=call.as_json) as tell:
        try:
            ended = await forge.operations.finish(
                operation.id,
                progress=lambda so_far: tell(
                    _sentence(done, Bulk.of(so_far)), _document(done, Bulk.of(so_far))
                ),
            )
        except asyncio.CancelledError:
            goes_on = f"Operation {operation.id} goes on where workers run; forge-jobs operations cancel {operation.id} ends it."
            print_warning(goes_on, as_json=call.as_json)
            raise
    report = bulk_report(done, Bulk.of(ended))
    if ended.state is OperationState.CANCELLED:
        why = ended.error or "Somebody cancelled it."
        raise ForgeError(f"Operation {operation.id} was not done: {why} {report.parts[0]}")
    return report


def described_of(operation: Operation) -> str:
    """Return '12 jobs that are pending or scheduled are to be cancelled'."""
    states = " or ".join(state.value for state in operation.states)
    jobs = "1 job that is" if operation.meant == 1 else f"{operation.meant:,} jobs that are"
    filters = [
        f"of queue {operation.queue}" if operation.queue else "",
        f"of kind {operation.kind}" if operation.kind else "",
        f"with key {operation.key}" if operation.key else "",
        f"in group {operation.group}" if operation.group else "",
        f"with tags {', '.join(operation.tags)}" if operation.tags else "",
    ]
    where = " ".join(one for one in filters if one)
    into = f" to {operation.into}" if operation.into else ""
    priority = f" to {operation.priority}" if operation.priority is not None else ""
    return f"{jobs} {states}{' ' + where if where else ''} to be {operation.move.value}{into}{priority}"


def bulk_report(verb: str, bulk: Bulk) -> Report:
    """Return what became of all jobs that matched; it has failed when some are as they were."""
    noun, them = ("job was", "it") if bulk.locked == 1 else ("jobs were", "them")
    left = (
        f"{bulk.locked:,} {noun} not {verb}: another transaction keeps {them} locked; run the command again."
    )
    return Report(_document(verb, bulk), [_sentence(verb, bulk)], [left] if bulk.locked else ())


def _document(verb: str, bulk: Bulk) -> dict[str, object]:
    running = {"running": bulk.running} if verb == "cancelled" else {}
    return {verb: bulk.changed, **running, "skipped": bulk.skipped, "locked": bulk.locked}


def _sentence(verb: str, bulk: Bulk) -> str:
    noun = "job was" if bulk.changed == 1 else "jobs were"
    parts = [f"{bulk.changed:,} {noun} {verb}"]
    if bulk.running:
        parts.append(f"{bulk.running:,} of them are running, and their workers are told")
    if bulk.skipped:
        parts.append(f"{bulk.skipped:,} could not be: another job with their key has not ended")
    return "; ".join(parts) + "."

"""Contradictions between rows, as both databases find them, and the sentences about them."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from forge_jobs.model.finding import Fault, Finding

FIRST, END = -(2**63), 2**63 - 1
"""The ids of jobs lie between these."""

JOBS_AT_ONCE = 200_000
"""How many jobs one step of an audit looks at."""

ROUNDS = 3
"""How often contradictions are mended and looked for again: a repair may bring another one to light."""

RANKS = ("finished", "claimed", "scheduled", "blocked", "waiting", "ready", "abandoned")
"""Of the states of a job that is in several, the one that proves most comes first: an end that is written, a claim of
a registered worker, a moment to wait for, a line to stand in, a wait for a signal, a place in the queue, and last a claim of nobody."""

COUNTED = ("pending", "scheduled", "blocked", "in_progress", "done", "dead", "expired", "waiting")


class Row(NamedTuple):
    """One contradiction as the databases' `LOOK` answers it."""

    fault: str
    job_id: int | None
    what: (
        str | None
    )  # the state that the job is in; of a key its kind; a tag; the number of a queue or a worker
    key: str | None
    other: int | None  # the job that holds the key


@dataclass(frozen=True, slots=True)
class Contradictions:
    """What one look found about jobs."""

    rows: Sequence[Row]

    def ids(self, *faults: str) -> list[int]:
        """Return the ids of the jobs that have these faults."""
        return sorted({row.job_id for row in self.rows if row.fault in faults and row.job_id is not None})

    @property
    def queue_ids(self) -> list[int]:
        """Return the ids of the queues that are missing."""
        return sorted(int(row.what) for row in self.rows if row.fault == "queue" and row.what is not None)

    def parts(self, size: int) -> Iterator["Contradictions"]:
        """Yield the contradictions in parts of `size` rows."""
        for start in range(0, len(self.rows), size):
            yield Contradictions(self.rows[start : start + size])

    def findings(self, *, forget: bool = False) -> dict[object, Finding]:
        """Return a finding for each contradiction, by a key of its own; its `mended` says what mending it would do."""
        findings: dict[object, Finding] = {}
        for job_id, states in self._places().items():
            findings["place", job_id] = _misplaced(job_id, states, forget)
        for row in self.rows:
            if row.fault != "place":
                findings[row] = _SENTENCES[row.fault](row)
        return findings

    def _places(self) -> Mapping[int, list[str]]:
        places: dict[int, list[str]] = defaultdict(list)
        for row in self.rows:
            if row.fault == "place" and row.job_id is not None:
                places[row.job_id] += [row.what] if row.what else []
        return places


async def looked(
    look: Callable[[], Awaitable[Contradictions]],
    mend: Callable[[Contradictions], Awaitable[None]],
    *,
    repair: bool,
    forget: bool,
) -> list[Finding]:
    """Return what a look finds; with `repair` it is mended, and the next look shows whether that helped."""
    found = await look()
    findings: list[Finding] = []
    for _ in range(ROUNDS if repair else 0):
        if not found.rows:
            break
        await mend(found)
        left = await look()
        findings += mended(found.findings(forget=forget), left.findings(forget=forget))
        found = left
    return findings + unmended(found.findings().values())


def mended(before: Mapping[object, Finding], after: Mapping[object, Finding]) -> list[Finding]:
    """Return the findings of one look that the next one, after a repair, does not show any more."""
    return [finding for key, finding in before.items() if key not in after]


def unmended(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without what a repair would do, since none was made."""
    return [replace(finding, mended=None) for finding in findings]


def _misplaced(job_id: int, states: Sequence[str], forget: bool) -> Finding:
    if not states:
        return Finding(
            Fault.PLACE,
            f"Job {job_id} is in no state: where it stood, or how it ended, was deleted.",
            job_id,
            "It is deleted." if forget else "It is pending, and runs (again).",
        )
    first, *others = sorted(states, key=RANKS.index)
    return Finding(
        Fault.PLACE,
        f"Job {job_id} is in {' and in '.join(_table(state) for state in (first, *others))}.",
        job_id,
        f"It stays in {_table(first)}.",
    )


def _table(state: str) -> str:
    return "claimed (by a worker that is not registered)" if state == "abandoned" else state


def _orphan(row: Row) -> Finding:
    return Finding(
        Fault.ORPHAN,
        f"Table {row.what} has a row about job {row.job_id}, which {'has ended, or ' if row.what in ('time_limit', 'pin') else ''}does not exist.",
        row.job_id,
        "The row is gone.",
    )


def _stale_key(row: Row) -> Finding:
    return Finding(
        Fault.KEY,
        f"Job {row.job_id} holds key {row.key!r} of kind {row.what}, though it has ended or does not have that key.",
        row.job_id,
        "The key is free.",
    )


def _strange_hold(row: Row) -> Finding:
    return Finding(
        Fault.KEY,
        f"Job {row.job_id} has a hold of kind {row.what}, which is not its kind.",
        row.job_id,
        "The hold is gone.",
    )


def _strange_tag(row: Row) -> Finding:
    return Finding(
        Fault.TAG,
        f"Job {row.job_id} is found by tag {row.what!r}, though it is not there or does not have that tag.",
        row.job_id,
        "It is not found by it any more.",
    )


def _tagless(row: Row) -> Finding:
    return Finding(
        Fault.TAG,
        f"Job {row.job_id} is not found by its tag {row.what!r}.",
        row.job_id,
        "It is found by it.",
    )


def _keyless(row: Row) -> Finding:
    if row.other is None:
        return Finding(
            Fault.KEY,
            f"Job {row.job_id} does not hold its key {row.key!r} of kind {row.what}.",
            row.job_id,
            "It holds its key.",
        )
    return Finding(
        Fault.KEY,
        f"Job {row.job_id} does not hold its key {row.key!r} of kind {row.what}: job {row.other} does; cancel one of them.",
        row.job_id,
    )


def _queueless(row: Row) -> Finding:
    return Finding(
        Fault.QUEUE,
        f"There are jobs of queue number {row.what}, which does not exist.",
        mended=f"It is made as {recovered(int(row.what or 0))}, paused.",
    )


def _undated(row: Row) -> Finding:
    return Finding(
        Fault.UNDATED,
        f"Job {row.job_id} is done, but not noted among those that were done at its moment: it would be kept for ever.",
        row.job_id,
        "It is noted.",
    )


def _lost(row: Row) -> Finding:
    return Finding(
        Fault.LOST,
        f"Job {row.job_id} is in progress by worker {row.what}, which is not registered: "
        "the reaper of any running worker hands it on.",
        row.job_id,
    )


_SENTENCES: Mapping[str, Callable[[Row], Finding]] = {
    "orphan": _orphan,
    "key": _stale_key,
    "hold": _strange_hold,
    "keyless": _keyless,
    "tag": _strange_tag,
    "tagless": _tagless,
    "queue": _queueless,
    "undated": _undated,
    "lost": _lost,
}


def recovered(queue_id: int) -> str:
    """Return the name of a queue that is made because its row was lost."""
    return f"recovered-{queue_id}"


def slot_finding(what: str, queue: str, number: int, detail: int | None) -> Finding:
    """Return the finding about one slot; `detail` is the worker or the concurrency."""
    slot = f"Slot {number} of queue {queue}"
    match what:
        case "held":
            return Finding(
                Fault.SLOT,
                f"{slot} is held by worker {detail}, which is not registered.",
                mended="It is free.",
            )
        case "missing":
            return Finding(Fault.SLOT, f"{slot} is missing.", mended="It is there.")
        case _:
            return Finding(
                Fault.SLOT, f"{slot} is beyond the queue's concurrency, {detail}.", mended="It is gone."
            )


def group_finding(what: str, group: str, job_id: int | None) -> Finding:
    """Return the finding about a group, or about a job in it."""
    found, mended = {
        "stale": (
            f"Job {job_id} has a place in group {group!r}, though it is neither pending nor in progress.",
            "The place is free.",
        ),
        "missing": (
            f"Job {job_id} is pending or in progress and has no place in its group {group!r}.",
            "It has one.",
        ),
        "lineless": (
            f"Job {job_id} stands in the line of group {group}, which does not exist.",
            "It is scheduled, and joins its groups.",
        ),
        "front": (
            f"The front of group {group!r} is behind one of its jobs.",
            "It is where the first one stands.",
        ),
        "standing": (
            f"Jobs of group {group!r} are blocked, though there is a place for them.",
            "It is theirs.",
        ),
    }[what]
    return Finding(Fault.GROUP, found, job_id, mended)


def count_finding(queue: str | None, queue_id: int, noted: Sequence[int], real: Sequence[int]) -> Finding:
    """Return the finding about the counts of one queue."""
    name = queue or f"number {queue_id}"
    wrong = [
        f"{say} {state} where there are {are}"
        for state, say, are in zip(COUNTED, noted, real, strict=True)
        if say != are
    ]
    return Finding(Fault.COUNT, f"Queue {name} counts {', '.join(wrong)}.", mended="It counts what there is.")

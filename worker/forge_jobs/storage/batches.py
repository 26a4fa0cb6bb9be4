"""Batches of verdicts: written down as a whole, or in parts when the database does not take the whole.

A worker writes its own outcomes by this, and the reaper those of lost workers. An outcome that
cannot be written must harm no other: a batch that is refused, or held up by somebody's lock, is
halved until that outcome is alone. An outcome that is refused alone is written without what was
refused, as far as the database takes any of it; one that is held up is tried later.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from forge_jobs.errors import ForgeError, StorageBusy, StorageUnavailable
from forge_jobs.model.error_text import kept
from forge_jobs.model.job import Claim, End, Postponement, Settled, State
from forge_jobs.model.run import Outcome
from forge_jobs.model.tenant import END_ALONE
from forge_jobs.rules.items import without_results
from forge_jobs.rules.verdict import Verdict, as_written
from forge_jobs.storage.interface.claims import Claims
from forge_jobs.storage.unsent import may_be_carried_out
from forge_jobs.telemetry.events import OutcomeRefused
from forge_jobs.telemetry.telemetry import Telemetry

LARGEST_BATCH = 1000  # verdicts
LARGEST_BYTES = 4 * 1024 * 1024  # of results and errors: what a slow link carries within a statement's time
MOST_NODES = 10_000  # that a batch adds to flows, unless one of its verdicts alone adds more
LONGEST_REFUSAL = 500  # characters of what the database said

Write = End | Postponement | Claim | Settled


class HeldOutcome(NamedTuple):
    """A verdict that could not be written now, and why."""

    verdict: Verdict
    error: Exception


def first(verdicts: Sequence[Verdict], room: int) -> Sequence[Verdict]:
    """Return as many of the first verdicts as one batch may have: at least one, and at most `room` bytes."""
    batch = verdicts[:LARGEST_BATCH]
    sizes = [verdict.size for verdict in batch]
    if sum(sizes) <= room:
        return batch
    count = total = 0
    for length in sizes:
        total += length
        if count and total > room:
            break
        count += 1
    return batch[:count]


def cut(verdicts: Sequence[Verdict], room: int) -> Iterator[Sequence[Verdict]]:
    """Yield the verdicts in batches as `first` has them."""
    while verdicts:
        yield (batch := first(verdicts, room))
        verdicts = verdicts[len(batch) :]


def parts(verdicts: Sequence[Verdict]) -> list[Sequence[Verdict]]:
    """Return the verdicts in parts that one statement each writes."""
    if all([type(verdict.write) is End and verdict.run.claim.links in END_ALONE for verdict in verdicts]):
        return [verdicts] if verdicts else []
    kinds: dict[tuple[type[Write], bool, bool], list[Verdict]] = {}
    for verdict in verdicts:
        links = verdict.run.claim.links
        is_linked = links not in END_ALONE if type(verdict.write) is End else links is not None
        waits = type(verdict.write) is Postponement and verdict.write.wait is not None
        kinds.setdefault((type(verdict.write), is_linked, waits), []).append(verdict)
    return [part for of_kind in kinds.values() for part in _by_nodes(of_kind)]


def _by_nodes(verdicts: Sequence[Verdict]) -> Iterator[Sequence[Verdict]]:
    begin = total = 0
    for place, verdict in enumerate(verdicts):
        changes = verdict.write.changes if isinstance(verdict.write, End) else None
        more = 0 if changes is None else len(changes.nodes)
        if begin < place and total + more > MOST_NODES:
            yield verdicts[begin:place]
            begin, total = place, 0
        total += more
    yield verdicts[begin:]


async def write(claims: Claims, part: Sequence[Verdict]) -> list[int]:
    """The verdicts, all of one kind, are written down; return the ids of the jobs whose claim was lost.

    Their runs say what was written: a job that a user cancelled does not wait again. When nobody knows whether
    they are written, they are `unanswered` from then on.
    """
    lost = await _write(claims, part, [verdict.write for verdict in part])
    if type(part[0].write) is not End:
        for verdict in part:
            verdict.run = as_written(verdict)
    return lost


async def write_apart(
    claims: Claims,
    telemetry: Telemetry,
    verdicts: Sequence[Verdict],
    settled: Callable[[Sequence[Verdict], Sequence[int]], None],
    room: int = LARGEST_BYTES,
) -> list[HeldOutcome]:
    """Each of the verdicts is written down, whatever becomes of the others, in batches of at most `room` bytes.

    `settled(verdicts, lost)` is called for each part that is written. A verdict that the database takes
    only in part is changed to what was written, and an event says so. Return those that are not
    written. When the database cannot be reached nothing more is tried.
    """
    waiting = [list(batch) for part in parts(verdicts) for batch in cut(part, room)][::-1]
    held: list[HeldOutcome] = []
    while waiting:
        part = waiting.pop()
        try:
            lost = await write(claims, part)
        except Exception as error:
            if isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy):
                held += [HeldOutcome(verdict, error) for rest in (part, *waiting) for verdict in rest]
                return held
            if len(part) > 1:
                half = len(part) // 2
                waiting += [part[half:], part[:half]]
            elif isinstance(error, ForgeError) and not isinstance(error, StorageUnavailable):
                written = await write_less(claims, telemetry, part[0], error)
                if written is None:
                    held.append(HeldOutcome(part[0], error))
                else:
                    settled(part, written)
            else:
                held.append(HeldOutcome(part[0], error))
        else:
            settled(part, lost)
    return held


async def write_less(
    claims: Claims, telemetry: Telemetry, verdict: Verdict, error: ForgeError
) -> list[int] | None:
    """The verdict is written down without what `error` refuses, and changed to what was written.

    Return the ids of the jobs whose claim was lost; None when the database takes nothing of it.
    """
    refusal = str(error)[:LONGEST_REFUSAL].encode("ascii", "backslashreplace").decode()
    for less in _less(verdict.write, refusal):
        try:
            lost = await _write(claims, [verdict], [less])
        except StorageUnavailable:
            return None
        except ForgeError:
            continue
        verdict.write = less
        verdict.run = replace(verdict.run, error=less.error)
        if type(less) is End and less.state is State.DEAD and verdict.run.outcome is not Outcome.CANCELLED:
            verdict.run = replace(verdict.run, outcome=Outcome.DEAD, retry_in=None)
        verdict.run = as_written(verdict)
        telemetry.emit(OutcomeRefused(less.claim.job_id, refusal, less.error or "nothing of its error"))
        return lost
    return None


def _less(write: Write, refusal: str) -> Iterator[End | Postponement]:
    """Yield what may be written where `write` is refused, that with the most first."""
    if isinstance(write, Claim | Settled):
        return  # these have no parts to leave out
    if (
        write.payload is not None
        and (payload := without_results(write.payload, write.claim.codec, write.claim.kind)) is not None
    ):
        note = f"The results of its items were not kept: {refusal}"
        error = note if write.error is None else kept(f"{write.error}\n{note}")
        write = replace(write, payload=payload, error=error)
        yield write
    if isinstance(write, End) and write.result is not None:
        write = replace(write, result=None, error=f"done, but its result was not kept: {refusal}")
        yield write
    elif write.error is not None:
        if not write.error.isascii():
            yield replace(write, error=write.error.encode("ascii", "backslashreplace").decode())
        yield replace(write, error=f"its error was not kept: {refusal}")
    if write.error is not None:
        yield replace(write, error=None)
    if not (isinstance(write, End) and write.state is State.DEAD):
        duration = write.duration if isinstance(write, End) else 0.0
        error = f"its outcome could not be stored: {refusal}"
        yield End(write.claim, State.DEAD, duration, error=error, payload=write.payload)


async def _write(claims: Claims, part: Sequence[Verdict], writes: Sequence[Write]) -> list[int]:
    try:
        return await _written(claims, writes)
    except (StorageUnavailable, asyncio.CancelledError) as error:
        if may_be_carried_out(error):
            for verdict in part:
                verdict.unanswered = True
        raise


async def _written(claims: Claims, writes: Sequence[Write]) -> list[int]:
    match writes[0]:
        case End():
            return await claims.finish(writes)  # type: ignore[arg-type]  # all are of one kind
        case Postponement():
            return await claims.postpone(writes)  # type: ignore[arg-type]
        case Settled():
            return []
        case _:
            return await claims.hand_back(writes)  # type: ignore[arg-type]

"""The recorder: writes verdicts down, many at a time.

While one batch is on the wire the next gathers, so a busy worker writes large batches
and an idle one writes at once. A batch that the database did not answer is written
again: the guard of a claim makes that safe, whatever became of the first try. A batch that the
database refuses, or that a lock holds up, is written apart, while the others go on.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import chain

from forge_jobs.errors import ForgeError, StorageBusy, StorageUnavailable
from forge_jobs.model.job import NOBODY, Claim, End
from forge_jobs.model.run import Run
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage import batches
from forge_jobs.storage.batches import HeldOutcome
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.events import (
    ChoreFailed,
    JobsEnded,
    OutcomesDropped,
    OutcomesHeld,
    OutcomesParted,
    OutcomesUnwritten,
)
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.awaited import AwaitedJobs
from forge_jobs.worker.cooldowns import Cooldowns
from forge_jobs.worker.key_tokens import KeyTokens

LEAST_ROOM = 64 * 1024  # bytes
FIRST_HOLD, LONGEST_HOLD = 0.25, 10.0  # seconds until what is held is tried again
LARGE = 256 * 1024  # bytes of an outcome that a slow link may not carry within a statement's time
TRIES_OF_LARGE = 3
MOST_UNWRITTEN = 4000  # verdicts that wait to be written; when there are more, no job is claimed
MOST_UNWRITTEN_BYTES = 2 * batches.LARGEST_BYTES  # when results and errors are more, no job is begun


class Recorder:
    """Takes verdicts from runners. `recorded(verdicts, runs)` is called for each batch that the database knows, with
    the runs of those that were not dropped.
    """

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        recorded: Callable[[Sequence[Verdict], Sequence[Run]], None],
        tokens: KeyTokens | None = None,
    ) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._recorded = recorded
        self._tokens = tokens
        self.awaited = AwaitedJobs(storage.ends, storage.signals, telemetry)
        self._gathered: list[Verdict] = []
        self._on_the_wire: Sequence[Verdict] = ()
        self._asked_at: float | None = (
            None  # monotonic: when the database was first asked to write this batch
        )
        self._refused_at: float | None = None  # ... it first refused a whole one; None: it took one since
        self._refusal: str | None = None
        self._arrived = asyncio.Event()
        self._room = batches.LARGEST_BYTES  # of a batch; less after one that took too long
        self._bytes = 0  # of all verdicts that wait to be written
        self.is_full = False  # results wait that are too many bytes, so no job should be begun
        self._lighter = asyncio.Event()
        self._apart: dict[int, Verdict] = {}  # by their identity, in order; to be written apart from now on
        self._held: dict[int, Verdict] = {}  # ... to be written at the next try
        self._tries: dict[int, int] = {}  # of those held
        self._parted = asyncio.Event()
        self._outage = Outage("recording outcomes", telemetry)
        self._cooldowns = Cooldowns(storage, telemetry, self._outage)

    @property
    def pending(self) -> int:
        """Verdicts that the database does not know yet."""
        return len(self._gathered) + len(self._on_the_wire) + len(self._apart) + len(self._held)

    @property
    def waits_since(self) -> float | None:
        """Since when (monotonic) the database has taken no outcome at all; None when it takes them. One
        outcome that is refused does not count, nor does one that a lock holds up.
        """
        return min((at for at in (self._asked_at, self._refused_at) if at is not None), default=None)

    @property
    def error(self) -> str | None:
        """The database's error, if it gave one."""
        return self._outage.error or self._refusal

    @property
    def room(self) -> int:
        """How many more jobs may be claimed, so that not too much waits to be written."""
        return 0 if self.is_full else max(0, MOST_UNWRITTEN - self.pending)

    async def has_room(self) -> None:
        """Wait while it is full."""
        while self.is_full:
            self._lighter.clear()
            await self._lighter.wait()

    def claims(self) -> list[Claim]:
        """Return the claims of all verdicts that the database does not know yet."""
        return [verdict.run.claim for verdict in self.unwritten()]

    def unwritten(self) -> list[Verdict]:
        """Return all verdicts that the database does not know yet."""
        return [*self._apart.values(), *self._held.values(), *self._on_the_wire, *self._gathered]

    def add(self, verdict: Verdict) -> None:
        """The verdict will be written down."""
        self._gathered.append(verdict)
        if len(self._gathered) == 1:
            self._arrived.set()
        if verdict.size:
            self._bytes += verdict.size
            self.is_full = self._bytes > MOST_UNWRITTEN_BYTES

    async def run(self) -> None:
        """Write verdicts down as they come, until cancelled."""
        tasks = (
            OwnTask(self._write_as_they_come(), self._telemetry, name="recorder's batches"),
            OwnTask(self._write_apart_as_they_come(), self._telemetry, name="recorder's refused outcomes"),
        )
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def flush(self, *, is_last: bool = True) -> None:
        """Every verdict added so far is written down, or an event says which are not, if this is the last time.

        Only when `run` no longer runs.
        """
        try:
            while self._gathered:
                await self._write_batch()
            self._apart.update(self._held)
            self._held.clear()
            await self._write_apart()
        finally:
            if is_last and (left := self.unwritten()):
                self._telemetry.emit(OutcomesUnwritten([verdict.run.claim.job_id for verdict in left]))

    async def _write_as_they_come(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._gathered:
                await self._write_batch()

    async def _write_batch(self) -> None:
        batch = batches.first(self._gathered, self._room)
        del self._gathered[: len(batch)]
        self._on_the_wire = batch
        self._asked_at = time.monotonic()
        self.awaited.link(batch)
        try:
            if any([verdict.throttled is not None for verdict in batch]):
                await self._cooldowns.begin(batch)
            if self._tokens is not None and (unbegun := self._tokens.unused(batch)):
                await self._keep_tokens(self._tokens, unbegun)
            parts = batches.parts(batch)
            while parts:
                await self._write(parts[-1])
                parts.pop()
                self._on_the_wire = list(chain.from_iterable(parts))
        except asyncio.CancelledError:
            # `flush` writes again what was not answered, which does no harm
            self._gathered[:0] = self._on_the_wire
            raise
        finally:
            self._on_the_wire = ()
            self._asked_at = None

    async def _keep_tokens(self, tokens: KeyTokens, batch: Sequence[Verdict]) -> None:
        """What jobs were granted that have not used it is kept for them before anybody can claim them again."""
        go_on = [verdict.run.claim for verdict in batch if not isinstance(verdict.write, End)]
        while True:
            try:
                await tokens.keep(go_on)
            except StorageUnavailable as error:
                if not isinstance(error, StorageBusy):
                    await self._outage.wait(error)
                    continue
            except Exception as error:  # any error: it must not keep the outcomes waiting
                self._telemetry.emit(ChoreFailed("keeping tokens of keys", error, 0.0))
            break  # what could not be kept is lost: too few tokens, never too many
        tokens.forget([verdict.run.claim for verdict in batch])

    async def _write(self, part: Sequence[Verdict]) -> None:
        """The database knows these verdicts, or they are written apart from now on."""
        while True:
            try:
                lost = await batches.write(self._storage.claims, part)
            except StorageUnavailable as error:
                if isinstance(error, StorageBusy):
                    self._room = max(LEAST_ROOM, self._room // 2)
                    return self._part(part, error)
                await self._outage.wait(error)
            except Exception as error:  # any error: it must not keep the other outcomes waiting
                return self._part(part, error)
            else:
                self._outage.over()
                self._room = min(batches.LARGEST_BYTES, 2 * self._room)
                return self._settle(part, lost)

    def _part(self, part: Sequence[Verdict], error: Exception) -> None:
        """These verdicts are written apart from now on."""
        self._telemetry.emit(OutcomesParted([verdict.run.claim.job_id for verdict in part], str(error)))
        self._apart.update((id(verdict), verdict) for verdict in part)
        self._parted.set()

    def _settle(self, part: Sequence[Verdict], lost: Sequence[int]) -> None:
        """The database knows these verdicts, or dropped them since the jobs had been taken back."""
        self._refused_at = self._refusal = None
        if self._bytes:
            self._bytes -= sum(verdict.size for verdict in part)
            self.is_full = self._bytes > MOST_UNWRITTEN_BYTES
            self._lighter.set()
        # A verdict that an unanswered try did write finds no claim either.
        dropped = set(lost)
        runs = [verdict.run for verdict in part]
        if dropped:
            dropped -= {verdict.run.claim.job_id for verdict in part if _may_be_written(verdict)}
            runs = [run for run in runs if run.claim.job_id not in dropped]
        self._recorded(part, runs)
        if dropped:
            self._telemetry.emit(OutcomesDropped(sorted(dropped)))
        if runs:
            self._telemetry.emit(JobsEnded(runs))

    async def _write_apart_as_they_come(self) -> None:
        pause, again_at = FIRST_HOLD, 0.0
        while True:
            try:
                async with asyncio.timeout(max(0.0, again_at - time.monotonic()) if self._held else None):
                    await self._parted.wait()
                    self._parted.clear()
            except TimeoutError:
                self._apart.update(self._held)
                self._held.clear()
                pause = min(2 * pause, LONGEST_HOLD)
            held_before = len(self._held)
            if held := await self._write_apart():
                self._say_held(held, pause)
            if not self._held:
                pause = FIRST_HOLD
            if not held_before:
                again_at = time.monotonic() + pause

    def _say_held(self, held: Sequence[HeldOutcome], pause: float) -> None:
        ids = sorted({outcome.verdict.run.claim.job_id for outcome in held})
        error = held[0].error
        refusals = [outcome.error for outcome in held if not isinstance(outcome.error, StorageBusy)]
        if len(refusals) > 1:
            self._refused_at = self._refused_at or time.monotonic()
            self._refusal = str(refusals[0])
        self._telemetry.emit(OutcomesHeld(ids, str(error), pause))
        if not isinstance(error, ForgeError):
            self._telemetry.emit(ChoreFailed("recording outcomes", error, pause))

    async def _write_apart(self) -> list[HeldOutcome]:
        """Write the verdicts that need to be written one by one; return those that have to be held."""
        held = await batches.write_apart(
            self._storage.claims, self._telemetry, list(self._apart.values()), self._settle_apart, self._room
        )
        still = []
        for verdict, error in held:
            tries = self._tries[id(verdict)] = self._tries.get(id(verdict), 0) + 1
            if isinstance(error, StorageBusy) and tries >= TRIES_OF_LARGE and verdict.size > LARGE:
                lost = await batches.write_less(self._storage.claims, self._telemetry, verdict, error)
                if lost is not None:
                    self._settle_apart([verdict], lost)
                    continue
            still.append(HeldOutcome(verdict, error))
        self._held.update((id(verdict), verdict) for verdict, _ in still)
        for verdict, _ in still:
            del self._apart[id(verdict)]
        return still

    def _settle_apart(self, part: Sequence[Verdict], lost: Sequence[int]) -> None:
        for verdict in part:
            del self._apart[id(verdict)]
            self._tries.pop(id(verdict), None)
        self._settle(part, lost)


def _may_be_written(verdict: Verdict) -> bool:
    """Whether the database may have carried out a try that it did not answer."""
    return verdict.unanswered and verdict.run.claim.worker_id != NOBODY

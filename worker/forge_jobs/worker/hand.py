"""The hand: the jobs of this worker, from their claim until they have a verdict.

`claimer` adds them and `runners` take them out. A few are claimed ahead while jobs are
short, so that no runner waits for a claim; what no handler has begun can go back at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from types import MappingProxyType

from forge_jobs.model.job import Claim
from forge_jobs.rules.verdict import Verdict, handed_back
from forge_jobs.system.uptime import uptime
from forge_jobs.worker.attempt import Attempt, Record
from forge_jobs.worker.extra_slots import ExtraSlot, ExtraSlots
from forge_jobs.worker.pace import Pace
from forge_jobs.worker.served_queue import ServedQueue

AHEAD = 0.05  # seconds of work that are claimed ahead
MOST_AHEAD = 1000  # jobs
SHARE_LEFT = 0.5  # of those, with which more are claimed
MOST_EARLY, SHARE_EARLY = 2000, 2 / 3  # the same where jobs pay after their claim, before they begin
SHARES = 3  # queues, of as many as there may be, that what is claimed ahead comes from
LONG_JOB = 0.2  # seconds of mean run time from which nothing is claimed ahead
WEIGHT = 0.05  # of one job in the mean


@dataclass(slots=True, eq=False)
class HeldUp:
    """Jobs of one claim that are in hand and do not wait for a runner yet."""

    queue: ServedQueue
    claims: list[Claim]
    since: float  # an `uptime`
    asked: int  # of the first ones, for which tokens were asked for together

    @property
    def payers(self) -> int:
        """How many may have paid already."""
        return min(self.asked, len(self.claims))


class Hand:
    """The hand of `count` runners. `hungry()` is called when so few jobs wait that more should be claimed.

    `slots` says of each heavy kind how many slots a job of it takes, at most `count`; a job of another kind takes one.
    """

    def __init__(
        self,
        count: int,
        record: Record,
        hungry: Callable[[], None],
        slots: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.waiting: deque[tuple[Claim | ExtraSlot, ServedQueue]] = deque()  # for a runner, in this order
        self.running: dict[int, Attempt] = {}  # by job
        self.hungry = hungry
        self.low = 0  # so few wait in line that more should be claimed
        self._count = count
        self._most_ahead, self._share_left = MOST_AHEAD, SHARE_LEFT
        self._few = 0  # `low` while no job is held up
        self.extra = ExtraSlots(slots)
        self._written = record
        self.record: Record = self._free_and_record if slots else record
        """Takes the verdict of a job that is in hand no more."""
        self._reading: dict[int, tuple[Claim, ServedQueue]] = {}  # by job, those whose payload is being read
        self._held_up: list[HeldUp] = []  # jobs that do not wait for a runner yet
        self._stuck: HeldUp | None = None  # the first of them, where that is so for long
        self._added = 0  # jobs that ever waited for a runner, but for those that went back
        self._pace = Pace()
        self._idle: deque[asyncio.Future[None]] = deque()  # of runners that wait for a job
        self._mean: float | None = None  # seconds that a job takes
        self._loop = asyncio.get_running_loop()

    def allow_time(self) -> None:
        """Jobs are claimed earlier, since some need time between their claim and their beginning."""
        self._most_ahead, self._share_left = MOST_EARLY, SHARE_EARLY

    def __len__(self) -> int:
        return (
            len(self.waiting) + self._not_in_line + len(self._reading) + len(self.running) + self.extra.kept
        )

    @property
    def _not_in_line(self) -> int:
        return sum([len(held_up.claims) for held_up in self._held_up])

    @property
    def _counting(self) -> int:
        """Jobs in hand without those that are held up for so long that they leave room for others."""
        return len(self) - (self._stuck.payers if self._stuck else 0)

    @property
    def holds_up(self) -> bool:
        """Whether there are jobs in hand that do not wait for a runner yet."""
        return bool(self._held_up)

    @property
    def slots_in_use(self) -> int:
        """Slots that running jobs have, or that are kept for a job that waits for more of them."""
        return len(self.running) + self.extra.kept

    @property
    def free(self) -> int:
        """Handlers that could be started at once."""
        return max(0, self._count - len(self))

    @property
    def ahead(self) -> int:
        """How many jobs to claim ahead of those that run, by how long a job takes and how fast jobs are taken."""
        if self._mean is None or self._mean > LONG_JOB:
            return 0
        return int(
            min(self._most_ahead, self._count * AHEAD / max(self._mean, 1e-6), self._pace.within(AHEAD))
        )

    @property
    def worth_a_claim(self) -> int:
        """How many jobs a claim should ask one queue for: more than one only of short jobs, which hold the others up for milliseconds."""
        return max(1, self.ahead // SHARES)

    def wanted(self) -> int:
        """How many more jobs should be claimed now; 0 when they would be too few for a statement."""
        ahead = 0 if self._stuck else self.ahead
        self._few = int(ahead * self._share_left)
        self._set_low()
        if len(self.waiting) - 1 > self.low:  # a runner that is about to take one asks before it does
            return 0
        return max(0, self._count + ahead - self._counting)

    def add(self, queue: ServedQueue, claims: Sequence[Claim]) -> Sequence[Claim]:
        """These jobs will be run, in this order, but for those for which no slot is left; return which will be."""
        line = self.extra.lined_up(claims) if self.extra.kinds else claims
        new = len(line)
        if new and not self.waiting:
            self._pace.begin(self._added)
        self.waiting.extend(zip(line, repeat(queue), strict=False))
        self._added += new
        if line is not claims:
            gone = self._hand_back_excess()
            claims = [claim for claim in claims if claim.job_id not in gone]
        while new and self._idle:
            idle = self._idle.popleft()
            if not idle.done():  # else its runner is gone
                idle.set_result(None)
                new -= 1
        return claims

    def hold_up(self, queue: ServedQueue, claims: Sequence[Claim]) -> Callable[[], None]:
        """These jobs are in hand, and wait for a runner from when what is returned is called, unless they have gone until then."""
        held_up = HeldUp(queue, list(claims), uptime(), len(claims))
        self._held_up.append(held_up)
        self._set_low()
        return partial(self._line_up, held_up)

    def holds_up_behind(self, queue: ServedQueue, kind: str, claims: Sequence[Claim]) -> bool:
        """Whether jobs of this kind are held up; then these, which were claimed later, are in hand and wait for a runner after them."""
        for held_up in reversed(self._held_up):
            if held_up.queue is queue and held_up.claims and held_up.claims[-1].kind == kind:
                held_up.claims.extend(claims)
                self._set_low()
                return True
        return False

    def _line_up(self, held_up: HeldUp) -> None:
        if held_up in self._held_up:
            self._held_up.remove(held_up)
            self._stuck = None
            self.add(held_up.queue, held_up.claims)
            self._set_low()

    def _set_low(self) -> None:
        """Jobs that are held up are as good as in line, but for those that find a runner free."""
        held_up = self._not_in_line - (self._stuck.payers if self._stuck else 0)
        self.low = self._few - max(0, min(held_up, self._counting - self._count))

    def slots_of(self, claims: Sequence[Claim]) -> int:
        """Return how many slots these jobs take."""
        kinds = self.extra.kinds
        return sum([kinds.get(claim.kind, 1) for claim in claims]) if kinds else len(claims)

    def arrival(self) -> "asyncio.Future[None]":
        """Return a future that is done when a job was added; each job ends one of them."""
        idle = self._loop.create_future()
        self._idle.append(idle)
        return idle

    def reads(self, claim: Claim, queue: ServedQueue) -> None:
        """A runner has taken the job out, and reads its payload before it begins."""
        self._reading[claim.job_id] = claim, queue

    def has_read(self, claim: Claim) -> bool:
        """The payload was read, or could not be. Return whether the job is still in hand; else it was
        handed back or dropped.
        """
        if (reading := self._reading.get(claim.job_id)) is None or reading[0] is not claim:
            return False
        del self._reading[claim.job_id]
        return True

    def took(self, seconds: float) -> None:
        """A job took so long: the longer they take, the fewer are claimed ahead."""
        self._mean = seconds if self._mean is None else self._mean + (seconds - self._mean) * WEIGHT

    def claims(self) -> list[Claim]:
        """Return the claims of all jobs that run, or wait here to be run."""
        begun = [attempt.claim for attempt in self.running.values()]
        unbegun = [claim for claim, _ in self.waiting if not isinstance(claim, ExtraSlot)]
        others = (*self._reading.values(), *self._held_up_jobs())
        return begun + [claim for claim, _ in others] + unbegun

    def completed(self) -> set[int]:
        """Return the jobs that run here and whose handlers have completed them, so that their claims may be gone."""
        return {
            job_id
            for job_id, attempt in self.running.items()
            if attempt.context is not None and attempt.context.completion is not None
        }

    def take_back(
        self, queue: ServedQueue | None = None, which: Callable[[Claim], bool] | None = None
    ) -> list[tuple[Claim, ServedQueue]]:
        """Return the jobs (of the queue; of which this holds) that no handler has begun; they are no longer in hand."""
        taken = [
            (claim, of)
            for claim, of in (*self._reading.values(), *self.waiting, *self._held_up_jobs())
            if not isinstance(claim, ExtraSlot)
            and (queue is None or of is queue)
            and (which is None or which(claim))
        ]
        gone = {claim.job_id for claim, _ in taken}
        for job_id in gone:
            self._reading.pop(job_id, None)
            self.extra.free(job_id)
        if gone:
            self._take_out(lambda job: job[0].job_id in gone)
        return taken

    def hand_back(
        self, queue: ServedQueue | None = None, which: Callable[[Claim], bool] | None = None
    ) -> None:
        """The jobs (of the queue; of which this holds) that no handler has begun are for others."""
        for claim, of in self.take_back(queue, which):
            self.record(handed_back(claim, of.config))

    def hand_back_surplus(self, seconds: float) -> None:
        """The jobs that no runner will take within so many seconds are for others. Those that came last go.

        A job for which slots are kept stays: it would lose them to jobs that need fewer, again and again.
        """
        self._hand_back_held_up(seconds)
        if not self.waiting:
            return
        self._pace.look(self._added - len(self.waiting))
        while len(self.waiting) > self._pace.within(seconds):
            if self.extra.are_gathered(self.waiting[-1][0].job_id):
                return
            self._hand_back_last()

    def _hand_back_held_up(self, seconds: float) -> None:
        """Once the first jobs are held up for longer, those behind them are for others, but for as many as there are runners.

        The first ones stay: what was asked for them may be theirs already.
        """
        first = next((held_up for held_up in self._held_up if held_up.claims), None)
        self._stuck = first if first is not None and uptime() - first.since > seconds else None
        if self._stuck is None:
            return
        for held_up in reversed(self._held_up):
            stay = held_up.payers if held_up is first else 0
            while len(held_up.claims) > stay and self._counting > self._count:
                self.record(handed_back(held_up.claims.pop(), held_up.queue.config))
        self._set_low()

    def _hand_back_excess(self) -> set[int]:
        """Jobs for which no slot is left are for others: some of those before them need more than one. Return which."""
        gone: set[int] = set()
        while len(self) - len(self.extra.of.get(self.waiting[-1][0].job_id, ())) > self._count + self.ahead:
            gone.add(self.waiting[-1][0].job_id)
            self._hand_back_last()
        return gone

    def _hand_back_last(self) -> None:
        claim, queue = self.waiting.pop()
        assert not isinstance(claim, ExtraSlot), "slots stand before their job"
        for _ in self.extra.of.get(claim.job_id, ()):
            self.waiting.pop()
            self._added -= 1
        self._added -= 1
        self.record(handed_back(claim, queue.config))

    def _free_and_record(self, verdict: Verdict) -> None:
        self.extra.free(verdict.run.claim.job_id)
        self._written(verdict)

    def drop(self, job_id: int) -> tuple[Claim, ServedQueue] | None:
        """Return the job if no handler has begun it; it is no longer in hand."""
        if job_id in self._reading:
            return self._reading.pop(job_id)
        for claim, queue in (*self.waiting, *self._held_up_jobs()):
            if claim.job_id == job_id and not isinstance(claim, ExtraSlot):
                self._take_out(lambda job: job[0].job_id == job_id)
                return claim, queue
        return None

    def _held_up_jobs(self) -> Iterator[tuple[Claim, ServedQueue]]:
        return ((claim, held_up.queue) for held_up in self._held_up for claim in held_up.claims)

    def _take_out(self, which: Callable[[tuple[Claim | ExtraSlot, ServedQueue]], bool]) -> None:
        stay = [job for job in self.waiting if not which(job)]
        self._added -= len(self.waiting) - len(stay)
        self.waiting.clear()
        self.waiting.extend(stay)
        for held_up in self._held_up:
            held_up.claims = [claim for claim in held_up.claims if not which((claim, held_up.queue))]
        self._set_low()

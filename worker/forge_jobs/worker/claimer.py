"""The claimer: fills the hand with jobs, fairly from all queues of the worker.

It looks where there may be something: in queues that gave a full batch last time, that
somebody says have work, or whose poll is due. Where nothing is found it marks the worker
idle, looks once more, and leaves the queue alone for longer and longer, up to five seconds.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from forge_jobs.errors import StorageBusy
from forge_jobs.handlers.handler import Handlers
from forge_jobs.model.job import Claim
from forge_jobs.model.links import is_pinned
from forge_jobs.model.rate_limit import Lease
from forge_jobs.model.worker import Standing, WorkerInfo
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import GateClosed, GateOpened
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.allowance import Allowance
from forge_jobs.worker.audit import ClaimAudit
from forge_jobs.worker.eras import Eras
from forge_jobs.worker.fitting import Fitting
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.held import HeldClaims
from forge_jobs.worker.hints import Outing
from forge_jobs.worker.marks import IdleMarks
from forge_jobs.worker.polling import LONGEST_POLL, SHORTEST_POLL
from forge_jobs.worker.queues_aside import QueuesAside
from forge_jobs.worker.recorder import Recorder
from forge_jobs.worker.scouts import Scouts
from forge_jobs.worker.served_queue import Configuration, Pauses, ServedQueue
from forge_jobs.worker.together import Together
from forge_jobs.worker.until_empty import UntilEmpty

LARGEST_CLAIM = 1000
LONGEST_IN_HAND = 1.0  # seconds that a job, or a slot, may be kept here without being used


class Claimer:
    """Claims for one registered worker. Moments are monotonic seconds."""

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        worker: WorkerInfo,
        queues: dict[int, ServedQueue],
        handlers: Handlers,
        *,
        hand: Hand,
        held: HeldClaims,
        allowance: Allowance,
        audit: ClaimAudit,
        recorder: Recorder,
        eras: Eras,
        clock_offset: float,
        stirred: asyncio.Event,
        take_in: Callable[[ServedQueue, Sequence[Claim]], Sequence[Claim]] | None = None,
        on_empty: Callable[[], None] | None = None,
    ) -> None:
        self.queues = queues  # by id; those that are not served any more as well
        self.is_open = True  # False: the worker's gate is closed, and the database would give it nothing
        self.looked_at = time.monotonic()  # when it was last able to make all its claims
        self._storage = storage
        self._telemetry = telemetry
        self._worker = worker
        self._handlers = handlers
        self._fitting = Fitting(telemetry, handlers, recorder)
        self._hand = hand
        self._held = held
        self._allowance = allowance
        self._audit = audit
        self._recorder = recorder
        recorder.awaited.serve(worker.id, held.has)
        self._eras = eras
        self._take_in = take_in or hand.add  # and have the tokens of jobs that are limited by key asked for
        self._clock_offset = clock_offset  # seconds that the database's clock is ahead of ours
        self._stirred = stirred  # set: something changed that the claimer may wait for
        self._is_stopping = False
        self._order = list(queues.values())
        self._paused_groups: Pauses = frozenset()
        self._outage = Outage("claiming jobs", telemetry)
        self._aside = QueuesAside(telemetry, self._doubt)
        self._marks = IdleMarks(storage.wakeups, worker.id)
        self._together = Together(storage.claims, telemetry, worker.id, self._audit.hurry)
        self._scouts = Scouts(storage.claims, telemetry, worker.id, self.wake)
        self._until_empty = (
            None if on_empty is None else UntilEmpty(eras, storage.schedule, telemetry, self.wake, on_empty)
        )

    @property
    def error(self) -> str | None:
        """The database's error at the last look, if that failed for any queue."""
        return self._outage.error or self._aside.error

    def stop(self) -> None:
        """Nothing more is claimed, and `run` returns once no claim is on the wire."""
        self._is_stopping = True
        self._stirred.set()

    def gated(self, is_open: bool) -> None:
        """The worker may claim, or may not: then jobs that it has not begun are handed back."""
        was_open, self.is_open = self.is_open, is_open
        if not is_open:
            self._hand.hand_back()
        if is_open == was_open:
            return
        self.wake()
        label = self._worker.label
        self._telemetry.emit(GateOpened(label) if is_open else GateClosed(label, len(self._hand.running)))

    def wake(self, queue_id: int | None = None) -> None:
        """There may be work in the queue (None: in any): look at once."""
        for queue in self._order if queue_id is None else filter(None, [self.queues.get(queue_id)]):
            queue.may_have_jobs()
            queue.woken = True
        self._stirred.set()

    def wake_behind(self, queue_id: int, priority: int, pos: int, worker_id: int) -> None:
        """A job of the queue became ready at this place, which looks may have passed already: look there.
        Jobs that this worker itself handed back are for others.
        """
        queue = self.queues.get(queue_id)
        if queue is not None and worker_id != self._worker.id:
            queue.hints.lower(priority, pos)
            self.wake(queue_id)

    def wake_for_slots(self, queue_id: int) -> None:
        """Slots of the queue were given back: look, if slots were missing. A worker that had slots and
        found no job does not look again, or two idle workers would wake each other for ever by giving back
        the slots that they took to look.
        """
        queue = self.queues.get(queue_id)
        if queue is not None and queue.lacks_slots:
            self.wake(queue_id)

    def forget_marks(self) -> None:
        """Idle marks may be gone from the database (it was away)."""
        self._marks.forget(self._order)

    def configure(self, wanted: Configuration) -> None:
        """These queues are served from now on, with this configuration. A queue that was deleted is not
        looked at any more; a later one of the same name is another queue.
        """
        there = {config.id: config for config in wanted.queues}
        for queue in self._order:
            if queue.id not in there:
                self._aside.forget(queue)
        self._order = [queue for queue in self._order if queue.id in there]
        if wanted.paused_groups - self._paused_groups:  # a hand-back lets their jobs stand in line again
            self._hand.hand_back(None, lambda claim: claim.has_groups)  # in which, the database knows
        self._paused_groups = wanted.paused_groups
        served = {queue.id for queue in self._order}
        for config in there.values():
            queue = self.queues.setdefault(config.id, ServedQueue(config, wanted.paused_kinds))
            if config.id not in served:
                self._order.append(queue)
                self.wake(config.id)
            if queue.paused_kinds != wanted.paused_kinds:
                self._pause_kinds(queue, wanted.paused_kinds)
            if queue.config == config:
                continue
            self._allowance.configured(queue, config)
            limits, queue.config = queue.limits, config
            if queue.limits != limits or self._is_shut(queue):
                self._hand.hand_back(queue)
            self.wake(config.id)

    def _pause_kinds(self, queue: ServedQueue, kinds: frozenset[str]) -> None:
        """No job of these kinds is begun; those that were paused before are looked for from the queue's beginning."""
        queue.paused_kinds = kinds
        queue.hints.forget()
        self._hand.hand_back(queue, lambda claim: claim.kind in kinds)
        self.wake(queue.id)

    def recorded(self, verdicts: Sequence[Verdict]) -> None:
        """These jobs are no longer in hand."""
        if self._until_empty is not None:
            self._until_empty.recorded()
        for queue in self._held.recorded(verdicts):
            if not queue.is_claimed_ahead or self._until_empty is not None:
                queue.look_at = 0.0
        self._stirred.set()

    async def run(self) -> None:
        """Claim until stopped; a claim on the wire is waited for, since its jobs are ours."""
        try:
            await self._run()
        finally:
            await self._scouts.close()

    async def _run(self) -> None:
        while not self._is_stopping:
            self._stirred.clear()
            try:
                if time.monotonic() >= self._audit.at:
                    await self._audit.run()
                await self._let_go()
                if self._eras.is_in_doubt:
                    await self._take_stock()
                wanted = min(self._hand.wanted(), self._recorder.room)
                if self._eras.standing is None:
                    wanted = 0
                if wanted > 0:
                    await self._look(wanted)
                    self._outage.over()
            except Exception as error:  # whatever goes wrong here, the worker goes on
                for queue in self._order:
                    self._doubt(queue)
                await self._outage.wait(error)
                self._eras.hurry()
                continue
            if self._eras.standing is not None and self._aside.error is None:
                self.looked_at = time.monotonic()
            await self._rest(wanted > 0)

    async def _take_stock(self) -> None:
        """The history was cut: once it is known which claims are still ours, look as if nothing were known of the queues."""
        await self._audit.take_stock()
        for queue in self._order:
            self._allowance.doubt(queue)
            queue.hints.forget()
        self.wake()

    async def _let_go(self) -> None:
        """Jobs that no runner will take soon, and slots that are not used, go back: another worker may use them."""
        self._hand.hand_back_surplus(LONGEST_IN_HAND)
        for queue in self._order:
            if queue.is_limited:
                with self._aside.apart(queue):
                    await self._allowance.give_back_surplus(queue, LONGEST_IN_HAND)

    def _doubt(self, queue: ServedQueue) -> None:
        self._audit.hurry()  # a claim whose answer never came may have been carried out
        self._allowance.doubt(queue)

    def _is_shut(self, queue: ServedQueue) -> bool:
        return queue.is_shut(time.time() + self._clock_offset)

    async def _rest(self, looked: bool) -> None:
        if self._is_stopping or self._stirred.is_set():
            await asyncio.sleep(0)
            return
        now = time.monotonic()
        until = min(self._audit.at, now + LONGEST_IN_HAND)
        if looked and not self._hand.waiting:
            longest = LONGEST_IN_HAND if self._hand.holds_up else LONGEST_POLL
            until = min([self._audit.at, now + longest, *(queue.look_at for queue in self._order)])
        if until <= now:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(until - now):
                await self._stirred.wait()

    async def _look(self, wanted: int) -> None:
        now = time.monotonic()
        due = sorted((queue for queue in self._order if queue.look_at <= now), key=ServedQueue.is_full)
        # another queue is asked first each time, so that none is always last
        self._order = [*self._order[1:], *self._order[:1]]
        least = self._hand.worth_a_claim
        asked: set[int] = set()
        while due and wanted > 0 and not self._is_stopping:
            hungry: list[ServedQueue] = []
            place = 0
            while place < len(due) and wanted > 0:
                share = -(-wanted // (len(due) - place))
                limit = min(max(share, least), wanted, LARGEST_CLAIM)
                for queue, claimed in await self._ask(due, place, limit, wanted):
                    if queue.woken:  # set while the look was on its way, which may have missed the reason
                        queue.may_have_jobs()
                    asked.add(queue.id)
                    wanted -= claimed
                    place += 1
                    if queue.look_at <= now:
                        hungry.append(queue)
            due = hungry
        if len(asked) < len(self._order):  # the others have their turn at the next look
            self._order.sort(key=lambda queue: queue.id in asked)
        if self._until_empty is not None and all(queue.empty for queue in self._order):
            await self._until_empty.found_empty()

    async def _ask(
        self, due: Sequence[ServedQueue], place: int, limit: int, wanted: int
    ) -> list[tuple[ServedQueue, int]]:
        """Claim jobs from the queue at this place of those that are due, for up to `limit` slots, or from several of them from
        there on; return these in their order, and for how many slots each gave some. None: claiming from several failed.
        """
        if self.is_open and self._until_empty is None and (standing := self._eras.standing) is not None:
            queues = self._together.first_of(due, place, limit, wanted)
            if len(queues) > 1:
                return await self._claim_together(queues, limit, wanted, standing)
        queue = due[place]
        queue.woken = False
        claimed = 0
        with self._aside.apart(queue):
            claimed = await self._claim(queue, limit)
        return [(queue, claimed)]

    async def _claim_together(
        self, queues: Sequence[ServedQueue], limit: int, wanted: int, standing: Standing
    ) -> list[tuple[ServedQueue, int]]:
        answers = await self._together.ask(queues, limit, wanted, self._paused_groups, standing)
        for queue, look, claims, is_full in answers:  # nothing is awaited before all are in hand
            self._keep(queue, look, claims, is_full=is_full)
        empty = []
        for queue, _, claims, is_full in answers:
            self._aside.answered(queue)
            if not await self._looked(queue, claims, is_full=is_full):
                empty.append(queue)
        await self._found_nothing(*empty)
        return [(queue, len(claims)) for queue, _, claims, _ in answers]

    async def _claim(self, queue: ServedQueue, limit: int) -> int:
        """Claim jobs for up to `limit` slots; return for how many some were found."""
        only_pinned = not self.is_open
        if only_pinned and not self._handlers.are_pinned:
            await self._found_nothing(queue)  # gives slots back
            return 0
        if queue.is_put_off(time.monotonic()):
            return 0
        queue.asked_under, queue.paused_then = queue.limits, self._paused_groups
        asked = limit = min(queue.jobs_in(limit), queue.most)
        if not queue.is_claimed_ahead:
            limit = min(limit, queue.jobs_in(self._hand.free))
        if queue.is_limited:
            limit = await self._allowance.within_slots(queue, limit)
            queue.lacks_slots = limit <= 0
            if queue.lacks_slots:
                await self._found_nothing(queue)
                self._aside.answered(queue)
                queue.empty = queue.config.concurrency == 0 or await self._has_none(queue)
                return 0
        lease: Lease | None = None
        if queue.config.rate_limit is not None:
            lease = await self._allowance.lease(queue, queue.config.rate_limit, limit)
            if not lease.tokens:
                await self._found_no_token(queue)
                self._aside.answered(queue)
                return 0
            limit = lease.tokens
        standing = self._eras.standing
        if standing is None:  # the last beat brought doubts
            queue.look_at = time.monotonic() + SHORTEST_POLL
            await self._allowance.give_back_slots(queue)
            if lease is not None:
                await self._allowance.give_back_tokens(queue, lease, lease.tokens)
            return 0
        look = queue.hints.set_out()
        try:
            claims = await self._storage.claims.claim(
                queue.id,
                self._worker.id,
                limit=limit,
                in_hand=queue.in_hand,
                without_kinds=queue.left_alone_now(time.monotonic()),
                without_pinned=time.monotonic() < queue.pinned_alone_until,
                only_pinned=only_pinned,
                standing=standing,
                **({} if only_pinned or self._must_see_all(queue) else queue.hints.options()),
            )
        except StorageBusy:
            queue.took_too_long(limit)
            raise
        self._aside.answered(queue)
        is_full = len(claims) == limit
        added = self._keep(queue, look, claims, is_full=is_full, only_pinned=only_pinned)
        if lease is not None:
            await self._allowance.give_back_tokens(queue, lease, lease.tokens - len(added))
        if not await self._looked(queue, claims, is_full=is_full, ends_here=limit < asked):
            await self._found_nothing(queue)
        return self._hand.slots_of(claims)

    def _keep(
        self,
        queue: ServedQueue,
        look: Outing,
        claims: Sequence[Claim],
        *,
        is_full: bool,
        only_pinned: bool = False,
    ) -> Sequence[Claim]:
        """The look, for what is pinned only or not, claimed these jobs, as many as it asked for or fewer; return those that are in hand now."""
        queue.took(claims, self._hand.slots_of(claims))
        if claims and self._until_empty is not None:
            self._until_empty.claimed()
        new = self._held.claimed(queue, claims)
        self._recorder.awaited.claimed(claims)
        if not only_pinned:
            queue.hints.took(look, claims, is_full=is_full)
        known = self._fitting.of(queue, look, new)
        added = self._take_in(queue, known)
        if queue.limits != queue.asked_under or self._is_shut(queue):  # meanwhile
            self._hand.hand_back(queue)
        elif not self.is_open:
            self._hand.hand_back(queue, lambda claim: not is_pinned(claim.links))
        elif not self._paused_groups <= queue.paused_then:
            self._hand.hand_back(queue, lambda claim: claim.has_groups)
        return added

    async def _looked(
        self, queue: ServedQueue, claims: Sequence[Claim], *, is_full: bool, ends_here: bool = False
    ) -> bool:
        """Return whether there were jobs; then it is decided when to look again. `ends_here`: slots, runners or tokens end, not jobs."""
        after = time.monotonic()
        self._scouts.send(queue)
        if is_full:
            queue.may_have_jobs()
            await self._marks.saturated(queue, self._order, after)
            if ends_here:
                queue.look_at = after + SHORTEST_POLL
            queue.look_at = max(queue.look_at, queue.tokens_at)
            return True
        queue.full_since = None
        if claims:
            queue.may_have_jobs(after + SHORTEST_POLL)
        return bool(claims)

    def _must_see_all(self, queue: ServedQueue) -> bool:
        """Whether the look begins at the beginning: also when somebody waits to hear that the queue is empty, and it may be empty."""
        return queue.begins_anew or (self._until_empty is not None and not queue.hints.is_full)

    async def _found_no_token(self, queue: ServedQueue) -> None:
        """Look again when there may be a token. There may be jobs all the same, so the queue does not count as empty."""
        await self._allowance.give_back_slots(queue)
        queue.look_at = queue.tokens_at
        queue.empty = queue.is_dry or await self._has_none(queue)  # without refill no token comes

    async def _has_none(self, queue: ServedQueue) -> bool:
        """Whether the queue has no pending job, when none can be claimed now; False unless the worker is to
        end then.
        """
        if self._until_empty is None:
            return False
        counts = await self._storage.jobs.counts()
        return not any(count.pending for count in counts if count.queue == queue.name)

    async def _found_nothing(self, *queues: ServedQueue) -> None:
        now = time.monotonic()
        for queue in queues:
            await self._allowance.give_back_slots(queue)
        for queue in await self._marks.mark(queues):
            queue.empty = True
            queue.look_at = now + queue.poll
            queue.poll = min(queue.poll * 2, LONGEST_POLL)

"""The claimer: takes jobs for the runners, fairly from all queues of the worker.

It looks where there may be something: in queues that gave a full batch last time, that
somebody says have work, or whose poll is due. Where nothing is found it marks the worker
idle, looks once more, and leaves the queue alone for longer and longer, up to five seconds.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from forge_jobs.errors import StorageBusy, UnknownScope
from forge_jobs.handlers.handler import Handlers
from forge_jobs.model.job import NOBODY, Claim
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import Lease
from forge_jobs.rules.verdict import Verdict, released
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import ClaimsAdrift, HistoryCut, Telemetry, UnknownKind, UnknownLimit
from forge_jobs.worker.eras import Eras
from forge_jobs.worker.hints import Hints
from forge_jobs.worker.runners import Runners
from forge_jobs.worker.served_queue import LONGEST_POLL, SHORTEST_POLL, ServedQueue

LARGEST_CLAIM = 1000
SCOUT_EVERY = 0.25  # seconds between scouts of a queue
SCOUT_SHARE = 20  # ... or as many times what the last one took
SATURATED_AFTER = 1.0  # seconds of full batches after which nobody needs to wake us
LEFT_ALONE = 30.0  # seconds that jobs of an unknown kind are left to others
LONGEST_IN_HAND = 1.0  # seconds that a job, or a slot, may be kept here without being used
MOST_UNRECORDED = 4000
SHORTEST_RETRY = 0.05  # seconds between looks for a token
AUDIT_EVERY = 5.0  # seconds between looks at what the database says is ours
AUDIT_AGAIN = 0.5  # ... and until the second look, when something is in no hand
AUDIT_SHARE = 100  # ... or as many times what the last one took


Proof = tuple[int, int]
"""(job_id, attempt) of a claim of this worker."""


class Claimer:
    """Claims for one registered worker. Moments are monotonic seconds."""

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        worker_id: int,
        queues: Iterable[QueueConfig],
        handlers: Handlers,
        record: Callable[[Verdict], None],
        unrecorded: Callable[[], int],
        unrecorded_claims: Callable[[], list[Claim]],
        clock_offset: float,
        eras: Eras,
    ) -> None:
        self.queues = {config.id: ServedQueue(config) for config in queues}
        self.runners: Runners  # set by the session before `run`
        self.beat_now: Callable[[], None] = lambda: None  # ... too
        self.stopping = False
        self.is_open = True  # False: the worker's gate is closed, and the database would give it nothing
        self.looked_at = time.monotonic()  # when it last could do all that it wanted to
        self.on_empty: Callable[[], None] | None = None  # called when a round found every queue empty
        self._storage = storage
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._handlers = handlers
        self._record = record
        self._unrecorded = unrecorded
        self._unrecorded_claims = unrecorded_claims
        self._clock_offset = clock_offset  # seconds that the database's clock is ahead of ours
        self._eras = eras
        self._stirred = asyncio.Event()
        self._order = list(self.queues.values())
        self._outage = Outage("claiming jobs", telemetry)
        self._scouting = Outage("looking for jobs out of turn", telemetry)
        self._held: set[Proof] = set()  # of those claimed and not yet recorded
        self._held_again: Counter[Proof] = Counter()
        self._throttled: dict[Proof, ServedQueue] = {}
        self._has_recorded = False  # since all queues were found empty
        self._adrift: set[Proof] = set()  # ours by the last look, and in no hand
        self._unknown: set[Proof] = set()  # in a hand of ours, and not ours by the last look
        self._unknown_at_beat = 0  # how many beats had been heard when the first of them was seen
        self._audit_at = time.monotonic() + AUDIT_EVERY
        self._empty_at_beat: int | None = None  # how many beats had been heard then
        self._is_last_look = False  # after a beat that followed

    @property
    def said(self) -> str | None:
        """What the database said when it could not, if the last time was one."""
        return self._outage.said

    def stir(self) -> None:
        """Something changed that the claimer may wait for."""
        self._stirred.set()

    def wake(self, queue_id: int | None = None) -> None:
        """There may be work in the queue (None: in any): look at once."""
        for queue in self._order if queue_id is None else filter(None, [self.queues.get(queue_id)]):
            queue.look_at = 0.0
            queue.poll = SHORTEST_POLL
            queue.empty = False
            queue.woken = True
        self._stirred.set()

    def wake_behind(self, queue_id: int, priority: int, pos: int, worker_id: int) -> None:
        """A job of the queue became ready at this place, where no look may come any more: look there.

        What this worker itself handed back is for others.
        """
        queue = self.queues.get(queue_id)
        if queue is not None and worker_id != self._worker_id:
            queue.hints.told(priority, pos)
            self.wake(queue_id)

    def wake_for_slots(self, queue_id: int) -> None:
        """Slots of the queue were given back: look, if that was what lacked.

        Who had slots and found no job does not look again, or two idle workers would wake
        each other for ever by giving back what they took to look.
        """
        queue = self.queues.get(queue_id)
        if queue is not None and queue.lacks_slots:
            self.wake(queue_id)

    def forget_marks(self) -> None:
        """Idle marks may be gone from the database (it was away)."""
        for queue in self._order:
            queue.marked = False

    def configure(self, configs: Iterable[QueueConfig]) -> None:
        """These queues are served, and configured so, from now on.

        One that was deleted is not looked at any more; one of the same name that is made later is another.
        """
        there = {config.id: config for config in configs}
        self._order = [queue for queue in self._order if queue.id in there]
        served = {queue.id for queue in self._order}
        for config in there.values():
            queue = self.queues.setdefault(config.id, ServedQueue(config))
            if config.id not in served:
                self._order.append(queue)
                self.wake(config.id)
            if queue.config == config:
                continue
            if queue.config.concurrency != config.concurrency:
                # One that had no limit has slots for the jobs in hand by now, or nearly for all.
                queue.slots_in_doubt = config.concurrency is not None
                queue.slots = 0 if config.concurrency is None else queue.slots
            queue.config = config
            queue.tokens_at = 0.0
            if self._is_shut(queue):
                self._hand_back(queue)
            self.wake(config.id)

    def throttled(self, claim: Claim, queue: ServedQueue) -> None:
        """The world said "not so fast": what is in hand of the queue goes back, and no more is claimed until the
        database knows, which gives nothing while the queue cools down."""
        self._throttled[claim.job_id, claim.attempt] = queue
        queue.throttled += 1
        self._hand_back(queue)

    @property
    def adrift(self) -> frozenset[int]:
        """Jobs that are ours by the last look at the database, and in no hand of ours."""
        return frozenset(job_id for job_id, _ in self._adrift)

    def recorded(self, verdicts: Sequence[Verdict]) -> None:
        """These jobs are no longer in hand."""
        self._has_recorded = True
        for proof in [(verdict.run.claim.job_id, verdict.run.claim.attempt) for verdict in verdicts]:
            if proof not in self._held_again:
                self._held.discard(proof)
            elif self._held_again[proof] > 1:
                self._held_again[proof] -= 1
            else:
                del self._held_again[proof]
            if self._throttled and (throttled := self._throttled.pop(proof, None)):
                throttled.throttled -= 1
        counts = Counter(verdict.run.claim.queue_id for verdict in verdicts)
        for queue_id, count in counts.items():
            queue = self.queues[queue_id]
            queue.in_hand -= count
            if not queue.is_claimed_ahead or self.on_empty is not None:
                queue.look_at = 0.0
        self._stirred.set()

    async def run(self) -> None:
        """Claim until `stopping`; a claim on the wire is waited for, since its jobs are ours."""
        try:
            await self._run()
        finally:
            scouts = [queue.scout for queue in self._order if queue.scout is not None]
            for scout in scouts:
                scout.cancel()
            await asyncio.gather(*scouts, return_exceptions=True)

    async def _run(self) -> None:
        while not self.stopping:
            self._stirred.clear()
            try:
                if time.monotonic() >= self._audit_at:
                    await self._audit()
                await self._let_go()
                if self._eras.is_in_doubt:
                    await self._take_stock()
                wanted = min(self.runners.wanted(), MOST_UNRECORDED - self._unrecorded())
                if self._eras.standing is None:
                    wanted = 0
                if wanted > 0:
                    await self._look(wanted)
                    self._outage.over()
            except Exception as error:  # whatever goes wrong here, the worker goes on
                self._audit_at = 0.0  # a claim whose answer never came may have been carried out
                for queue in self._order:
                    queue.slots_in_doubt = True
                await self._outage.wait(error)
                self.beat_now()
                continue
            if self._eras.standing is not None:
                self.looked_at = time.monotonic()
            await self._rest(wanted > 0)

    async def _take_stock(self) -> None:
        """The history was cut: what is in hand here and has no claim that the database knows is given up.

        No claim is on the wire meanwhile. An outcome of such a job proves nothing any more: a
        new job may have got its id.
        """
        doubts = self._eras.doubts
        held = await self._storage.claims.held(self._worker_id)
        known = _proofs(held)
        unknown = [claim for claim in self._claims() if (claim.job_id, claim.attempt) not in known]
        for claim in unknown:
            claim.worker_id = NOBODY
        await self.runners.stop_disowned()
        await self._storage.claims.answered()
        for queue in self._order:
            queue.slots_in_doubt = True
            queue.hints = Hints()
        self._telemetry.emit(HistoryCut(sorted({claim.job_id for claim in unknown}), len(known)))
        await self._eras.stock_was_taken(doubts)
        self.wake()

    async def _audit(self) -> None:
        """Compare what the database says is ours with what is in a hand of ours, where two looks say the same.

        Two, since the first may have been on its way while an outcome was written. No claim is
        on the wire meanwhile, or its jobs would be taken for lost. What is in no hand is handed back.
        """
        began = time.monotonic()
        self._audit_at = began + AUDIT_EVERY
        run = _proofs(self.runners.claims())
        held = {
            (claim.job_id, claim.attempt): claim for claim in await self._storage.claims.held(self._worker_id)
        }
        adrift = held.keys() - _proofs(self._claims())
        again = self._adrift & adrift
        self._adrift = adrift - again
        if again:
            self._telemetry.emit(ClaimsAdrift(sorted(job_id for job_id, _ in again)))
            for proof in again:
                self._regain(held[proof])
        # What still runs has no outcome that could have been written.
        self._doubt_unknown((run & _proofs(self.runners.claims())) - held.keys())
        now = time.monotonic()
        self._audit_at = now + (
            AUDIT_AGAIN if self._adrift or self._unknown else max(AUDIT_EVERY, AUDIT_SHARE * (now - began))
        )

    def _doubt_unknown(self, unknown: set[Proof]) -> None:
        """Of what runs here, the database does not know these claims. If it is so at two looks, its history was cut.

        Unless the worker was lost, which the beat between them tells.
        """
        if not unknown & self._unknown:
            self._unknown_at_beat = self._eras.beats
        elif self._eras.beats > self._unknown_at_beat:
            self._eras.doubt()
            unknown = set()
        self._unknown = unknown
        if unknown:
            self.beat_now()

    def _claims(self) -> list[Claim]:
        """Return the claims of all jobs that are in a hand of ours, until their outcome is recorded."""
        return self.runners.claims() + self._unrecorded_claims()

    def _regain(self, claim: Claim) -> None:
        queue = self.queues.get(claim.queue_id)
        if queue is None:
            return
        if (claim.job_id, claim.attempt) not in self._held:
            self._held.add((claim.job_id, claim.attempt))
            queue.in_hand += 1
        self._record(released(claim, queue.config))

    async def _let_go(self) -> None:
        """What this worker cannot use goes back, since somebody else may: jobs that no runner takes, and slots."""
        runners, now = self.runners, time.monotonic()
        if runners.has_waiting and uptime() - runners.moved_at >= LONGEST_IN_HAND and runners.is_full:
            runners.slow_down()
            self._hand_back()
        for queue in self._order:
            if not queue.is_limited or queue.slots <= queue.in_hand:
                queue.surplus_since = None
            elif queue.surplus_since is None:
                queue.surplus_since = now
            elif now - queue.surplus_since >= LONGEST_IN_HAND:
                await self._give_back_slots(queue)

    def _hand_back(self, queue: ServedQueue | None = None) -> None:
        """Jobs (of the queue) that were claimed and not begun are for others."""
        for claim, of in self.runners.take_back(queue):
            self._record(released(claim, of.config))

    def _is_shut(self, queue: ServedQueue) -> bool:
        """Whether nothing of the queue may be begun now."""
        config = queue.config
        if config.paused or config.concurrency == 0 or queue.throttled > 0:
            return True
        until = config.cooldown_until
        return until is not None and until.timestamp() > time.time() + self._clock_offset

    async def _rest(self, looked: bool) -> None:
        if self.stopping or self._stirred.is_set():
            await asyncio.sleep(0)
            return
        now = time.monotonic()
        until = min(self._audit_at, now + LONGEST_IN_HAND)
        if looked and not self.runners.has_waiting:
            until = min([self._audit_at, now + LONGEST_POLL, *(queue.look_at for queue in self._order)])
        if until <= now:
            return
        try:
            async with asyncio.timeout(until - now):
                await self._stirred.wait()
        except TimeoutError:
            pass

    async def _look(self, wanted: int) -> None:
        now = time.monotonic()
        due = [queue for queue in self._order if queue.look_at <= now]
        # the first to be asked changes, so that none is always last
        self._order = [*self._order[1:], *self._order[:1]]
        while due and wanted > 0 and not self.stopping:
            hungry = []
            for position, queue in enumerate(due):
                share = -(-wanted // (len(due) - position))
                limit = min(share, LARGEST_CLAIM)
                if limit <= 0:
                    break
                queue.woken = False
                found = await self._claim(queue, limit)
                if queue.woken:  # while the look was on its way, which may not have seen why
                    queue.look_at, queue.poll, queue.empty = 0.0, SHORTEST_POLL, False
                wanted -= found
                if queue.look_at <= now:
                    hungry.append(queue)
            due = hungry
        if self.on_empty is not None and all(queue.empty for queue in self._order):
            self._perhaps_empty(self.on_empty)

    def _perhaps_empty(self, on_empty: Callable[[], None]) -> None:
        """Every queue was found empty: look once more, unless that was the look."""
        if self._has_recorded:  # what ended meanwhile may have enqueued more, in any queue
            self._has_recorded = False
            self._empty_at_beat = None
            self.wake()
        elif self._empty_at_beat is None:  # in another era nothing is given either: the next beat says so
            self._empty_at_beat = self._eras.beats
            self.beat_now()
        elif not self._is_last_look and self._eras.beats > self._empty_at_beat:
            self._is_last_look = True
            self.wake()
        elif self._is_last_look:
            on_empty()

    async def _claim(self, queue: ServedQueue, limit: int) -> int:
        if not self.is_open:
            await self._found_nothing(queue)  # gives slots back
            return 0
        if queue.throttled:
            queue.look_at = time.monotonic() + SHORTEST_POLL
            return 0
        if time.monotonic() < queue.tokens_at:  # a wake-up brings no token
            queue.look_at = queue.tokens_at
            return 0
        asked = limit = min(limit, queue.most)
        if not queue.is_claimed_ahead:
            limit = min(limit, max(1, self.runners.free))
        if queue.is_limited:
            limit = await self._within_slots(queue, limit)
            queue.lacks_slots = limit <= 0
            if queue.lacks_slots:
                await self._found_nothing(queue)
                queue.empty = queue.config.concurrency == 0 or await self._has_none(queue)
                return 0
        lease: Lease | None = None
        if queue.config.rate_limit is not None:
            lease = await self._lease(queue, queue.config.rate_limit, limit)
            if not lease.tokens:
                await self._found_no_token(queue)
                return 0
            limit = lease.tokens
        standing = self._eras.standing
        if standing is None:  # the last beat brought doubts
            queue.look_at = time.monotonic() + SHORTEST_POLL
            await self._give_back_slots(queue)
            if lease is not None:
                await self._give_back(queue, lease, lease.tokens)
            return 0
        try:
            claims = await self._storage.claims.claim(
                queue.id,
                self._worker_id,
                limit=limit,
                in_hand=queue.in_hand,
                without_kinds=queue.left_alone_now(time.monotonic()),
                standing=standing,
                **({} if self._must_see_all(queue) else queue.hints.options()),
            )
        except StorageBusy:
            queue.took_too_long(limit)
            raise
        after = time.monotonic()
        queue.took(claims)
        if claims:
            self._empty_at_beat, self._is_last_look = None, False
        queue.in_hand += len(claims)
        queue.hints.took(claims, is_full=len(claims) == limit)
        known = self._known(queue, self._new(queue, claims))
        self.runners.add(queue, known)
        if not self.is_open or self._is_shut(queue):  # that came about while the claim was on its way
            self._hand_back(queue)
        if lease is not None:
            await self._give_back(queue, lease, lease.tokens - len(known))
        self._scout_soon(queue)
        if len(claims) == limit:
            queue.look_at, queue.poll, queue.empty = 0.0, SHORTEST_POLL, False
            await self._saturated(queue, after)
            if limit < asked:  # slots, runners or tokens end here, not the jobs
                queue.look_at = after + SHORTEST_POLL
            queue.look_at = max(queue.look_at, queue.tokens_at)
            return len(claims)
        queue.full_since = None
        if claims:
            queue.look_at, queue.poll, queue.empty = after + SHORTEST_POLL, SHORTEST_POLL, False
        else:
            await self._found_nothing(queue)
        return len(claims)

    def _must_see_all(self, queue: ServedQueue) -> bool:
        """Whether somebody waits to hear that the queue is empty, and it may be."""
        return self.on_empty is not None and not queue.hints.is_full

    def _scout_soon(self, queue: ServedQueue) -> None:
        """What stands before the hints is found, as soon as another scout is worth its cost."""
        if queue.scout is None or queue.scout.done():
            queue.scout = OwnTask(self._scout(queue), self._telemetry, name=f"scout of {queue.name}")

    async def _scout(self, queue: ServedQueue) -> None:
        await asyncio.sleep(max(0.0, queue.scout_at - time.monotonic()))
        now = time.monotonic()
        begun = queue.hints.set_out()
        try:
            front = await self._storage.claims.front(queue.id, without_kinds=queue.left_alone_now(now))
        except Exception as error:  # the looks go on meanwhile
            await self._scouting.wait(error)
            return
        self._scouting.over()
        after = time.monotonic()
        queue.scout_at = after + max(SCOUT_EVERY, SCOUT_SHARE * (after - now))
        if queue.hints.scouted(front, begun):
            self.wake(queue.id)

    def _new(self, queue: ServedQueue, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Return the claims that are not in hand already; hand the others back.

        A job that was given back with its attempt comes again under the same proof. While
        it is not known that the giving back was written down, it may be written again, and
        would take the job away from its handler.
        """
        proofs = [(claim.job_id, claim.attempt) for claim in claims]
        if self._held.isdisjoint(proofs):
            self._held.update(proofs)
            return claims
        new = []
        for claim, proof in zip(claims, proofs, strict=True):
            if proof in self._held:
                self._held_again[proof] += 1
                self._record(released(claim, queue.config))
            else:
                self._held.add(proof)
                new.append(claim)
        return new

    def _known(self, queue: ServedQueue, claims: Sequence[Claim]) -> list[Claim]:
        """Return the claims that this program has a handler for; hand the others back."""
        handlers = self._handlers
        if all(claim.kind in handlers for claim in claims):
            return list(claims)
        unknown = [claim for claim in claims if claim.kind not in handlers]
        for kind, jobs in Counter(claim.kind for claim in unknown).items():
            queue.left_alone[kind] = time.monotonic() + LEFT_ALONE
            self._telemetry.emit(UnknownKind(queue.name, kind, jobs))
        for claim in unknown:
            self._record(released(claim, queue.config))
        queue.hints.leave_alone()
        return [claim for claim in claims if claim.kind in handlers]

    async def _within_slots(self, queue: ServedQueue, limit: int) -> int:
        """Return how many of `limit` jobs the slots of this worker allow, taking slots that are free."""
        if queue.slots_in_doubt:
            await self._give_back_slots(queue)
        missing = queue.in_hand + limit - queue.slots
        if missing > 0:
            taken = await self._storage.queues.take_slots(queue.id, self._worker_id, missing)
            queue.slots += taken
        return min(limit, queue.slots - queue.in_hand)

    async def _lease(self, queue: ServedQueue, scope: str, limit: int) -> Lease:
        """Return tokens for up to `limit` jobs to start, and remember until when there is not one more.

        Each job that is claimed uses one up, also when it is handed back without having been
        started or the claim's answer never came: so there is never a start too many.
        """
        try:
            lease = await self._storage.limits.lease(scope, limit)
            queue.unknown_scope = None
        except UnknownScope:
            lease = Lease(scope, 0, 0, LONGEST_POLL, 0.0)
            if queue.unknown_scope != scope:
                queue.unknown_scope = scope
                self._telemetry.emit(UnknownLimit(queue.name, scope))
        if lease.retry_after > 0:
            pause = min(max(lease.retry_after, SHORTEST_RETRY), LONGEST_POLL)
            queue.tokens_at = time.monotonic() + pause
        return lease

    async def _give_back(self, queue: ServedQueue, lease: Lease, unused: int) -> None:
        """Tokens for which there was no job are in the bucket again, unless it was emptied since."""
        if unused <= 0:
            return
        queue.tokens_at = 0.0
        await self._storage.limits.give_back(lease.scope, unused, lease.generation)

    async def _found_no_token(self, queue: ServedQueue) -> None:
        """Look again when there may be one. There may be jobs all the same, so the queue is not empty."""
        await self._give_back_slots(queue)
        queue.look_at = queue.tokens_at
        queue.empty = await self._has_none(queue)  # nobody adds tokens to a bucket without refill

    async def _has_none(self, queue: ServedQueue) -> bool:
        """Whether a queue from which nothing can be claimed now has no job; asked only when that matters."""
        if self.on_empty is None:
            return False
        counts = await self._storage.jobs.counts()
        return not any(each.pending for each in counts if each.queue == queue.name)

    async def _give_back_slots(self, queue: ServedQueue) -> None:
        if queue.is_limited and (queue.slots > queue.in_hand or queue.slots_in_doubt):
            queue.slots = queue.in_hand
            await self._storage.queues.give_back_slots(queue.id, self._worker_id, queue.slots)
            queue.slots_in_doubt = False

    async def _found_nothing(self, queue: ServedQueue) -> None:
        now = time.monotonic()
        await self._give_back_slots(queue)
        if not queue.marked and not self._storage.wakeups.poll_only:
            await self._storage.wakeups.mark_idle(self._worker_id, [queue.id])
            queue.marked = True
            queue.look_at = 0.0  # once more: what came before the mark told nobody
            return
        queue.empty = True
        pause = queue.poll
        queue.poll = min(queue.poll * 2, LONGEST_POLL)
        queue.look_at = now + pause

    async def _saturated(self, queue: ServedQueue, now: float) -> None:
        """After a while of full batches, enqueues need not tell this worker."""
        if queue.full_since is None:
            queue.full_since = now
        elif queue.marked and now - queue.full_since > SATURATED_AFTER:
            await self._storage.wakeups.unmark_idle(self._worker_id)
            for other in self._order:
                if other.marked:  # its mark is gone too: look, and mark again
                    other.look_at = 0.0
            self.forget_marks()


def _proofs(claims: Iterable[Claim]) -> set[Proof]:
    return {(claim.job_id, claim.attempt) for claim in claims}

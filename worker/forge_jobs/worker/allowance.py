"""The allowance: how many jobs of a queue this worker may claim, by its slots and by its rate limit's tokens.

Slots are kept from one look to the next while jobs use them; what is not used goes back,
since another worker may need it. Tokens are leased for each claim.
"""

import time

from forge_jobs.errors import UnknownScope
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import Lease
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import UnknownLimit
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.polling import LONGEST_POLL
from forge_jobs.worker.served_queue import ServedQueue

SHORTEST_RETRY = 0.05  # seconds between looks for a token


class Allowance:
    """Of one worker. What it has is written at each queue; moments are monotonic seconds."""

    def __init__(self, storage: Storage, telemetry: Telemetry, worker_id: int) -> None:
        self._slots = storage.slots
        self._tokens = storage.tokens
        self._telemetry = telemetry
        self._worker_id = worker_id

    async def within_slots(self, queue: ServedQueue, limit: int) -> int:
        """Return how many of `limit` jobs the slots of this worker allow, taking slots that are free."""
        if queue.slots_in_doubt:
            await self.give_back_slots(queue)
        missing = queue.in_hand + limit - queue.slots
        if missing > 0:
            taken = await self._slots.take(queue.id, self._worker_id, missing)
            queue.slots += taken
        return min(limit, queue.slots - queue.in_hand)

    def doubt(self, queue: ServedQueue) -> None:
        """A change of slots got no answer: it may have been carried out or not."""
        queue.slots_in_doubt = True

    async def give_back_slots(self, queue: ServedQueue) -> None:
        """The worker has a slot for each job of the queue in hand, and no more."""
        if queue.is_limited and (queue.slots > queue.in_hand or queue.slots_in_doubt):
            queue.slots = queue.in_hand
            await self._slots.give_back(queue.id, self._worker_id, queue.slots)
            queue.slots_in_doubt = False

    async def give_back_surplus(self, queue: ServedQueue, unused_for: float) -> None:
        """Slots that no job in hand has needed for `unused_for` seconds are given back."""
        now = time.monotonic()
        if not queue.is_limited or queue.slots <= queue.in_hand:
            queue.surplus_since = None
        elif queue.surplus_since is None:
            queue.surplus_since = now
        elif now - queue.surplus_since >= unused_for:
            await self.give_back_slots(queue)

    def configured(self, queue: ServedQueue, config: QueueConfig) -> None:
        """The queue has this configuration from now on."""
        if queue.config.concurrency != config.concurrency:
            # A queue that had no limit has slots for the jobs in hand by now, or for nearly all.
            queue.slots_in_doubt = config.concurrency is not None
            queue.slots = 0 if config.concurrency is None else queue.slots
        queue.tokens_at = 0.0

    async def lease(self, queue: ServedQueue, scope: str, limit: int) -> Lease:
        """Return tokens for the start of up to `limit` jobs; when there are none, remember when to ask
        again. Each job that is claimed uses one, also when it is handed back without having been started or
        when the claim's answer never came, so there is never a start too many.
        """
        try:
            lease = await self._tokens.lease(scope, limit)
            queue.unknown_scope = None
        except UnknownScope:
            lease = Lease(scope, 0, 0, LONGEST_POLL, 0.0, 0.0)
            if queue.unknown_scope != scope:
                queue.unknown_scope = scope
                self._telemetry.emit(UnknownLimit(queue.name, scope))
        queue.is_dry = lease.time_stands_still
        if lease.retry_after > 0:
            pause = min(max(lease.retry_after, SHORTEST_RETRY), LONGEST_POLL)
            queue.tokens_at = time.monotonic() + pause
        return lease

    async def give_back_tokens(self, queue: ServedQueue, lease: Lease, unused: int) -> None:
        """Tokens for which there was no job are in the bucket again; see `Tokens.give_back`."""
        if unused <= 0:
            return
        queue.tokens_at = 0.0
        await self._tokens.give_back(lease, unused)

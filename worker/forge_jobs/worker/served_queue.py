"""A queue as one worker serves it: its configuration, and where the worker stands with it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import inf

from forge_jobs.model.job import LARGE_PAYLOAD, Claim
from forge_jobs.model.queue import QueueConfig
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.worker.hints import Hints
from forge_jobs.worker.polling import LONGEST_POLL, SHORTEST_POLL

LARGEST_ROOM = 4 * 1024 * 1024  # bytes
SAMPLE = 16  # payloads that are measured of each claim
QUICK = 0.05  # seconds that a scout took, at most, where looks may do without


Pauses = frozenset[tuple[str, datetime]]
"""The paused groups, and since when they are: one that was resumed and paused again is another pause."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is configured about the queues that a worker serves."""

    queues: Sequence[QueueConfig]
    paused_kinds: frozenset[str]
    paused_groups: Pauses = frozenset()

    @classmethod
    async def read(cls, storage: Storage, names: Collection[str]) -> "Configuration":
        """Return what is configured about the queues of these names that there are."""
        queues = [queue for queue in await storage.queues.all() if queue.name in names]
        kinds = frozenset(paused.kind for paused in await storage.kinds.paused())
        return cls(queues, kinds, frozenset((await storage.groups.paused()).items()))


Limits = tuple[int | None, str | None]
"""Of a queue: its concurrency and the scope of its rate limit."""


@dataclass(slots=True)
class ServedQueue:
    """Each group of facts is written by one part of the worker. Moments are the event loop's monotonic seconds."""

    config: QueueConfig
    paused_kinds: Collection[str] = ()
    room: int = LARGEST_ROOM  # bytes of payloads and states in one claim; less after one that took too long
    mean: float = (
        LARGE_PAYLOAD  # bytes of both for a job in the last claims; before the first one, what it may be
    )
    is_unknown: bool = True  # whether no job was ever claimed from it
    weight: float = 1.0  # slots of this worker that a job took in the last claims

    # held
    in_hand: int = 0  # jobs claimed and not yet recorded
    throttled: int = 0  # of these, that were throttled

    # allowance
    slots: int = 0  # held, when the queue has a concurrency
    slots_in_doubt: bool = False  # a change of them got no answer: it may have been carried out or not
    surplus_since: float | None = None  # since when it holds slots that no job in hand needs
    tokens_at: float = 0.0  # before that its rate limit has no token
    is_dry: bool = False  # whether waiting brings none
    unknown_scope: str | None = None  # its rate limit, when that was last found missing

    # claimer
    asked_under: Limits = None, None  # its limits when it was last asked for jobs
    paused_then: Pauses = frozenset()  # the groups that were paused then
    look_at: float = 0.0  # when to look for jobs again
    poll: float = SHORTEST_POLL  # the wait after a look that finds nothing
    empty: bool = False  # whether the last look found nothing
    lacks_slots: bool = False  # whether it found none that it could take
    woken: bool = False  # since the last look began
    full_since: float | None = None  # since when every look found as many jobs as it asked for
    marked: bool = False  # whether enqueues tell this worker
    is_asked_alone: bool = False  # since a call for it failed, until one is answered
    aside_until: float = 0.0  # before that it is not asked, since calls for it failed
    left_alone: dict[str, float] = field(default_factory=dict)  # unknown kinds, until when
    pinned_alone_until: float = 0.0  # before that, what other versions have begun is passed over
    hints: Hints = field(default_factory=Hints)
    scout_at: float = 0.0  # when the next scout may set out
    scouted_at: float = 0.0  # when the last one came back
    scout_took: float = inf  # seconds

    @property
    def id(self) -> int:
        """The id of the queue's row."""
        return self.config.id

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.config.name

    def is_full(self) -> bool:
        """Whether the last look found as many jobs as it asked for: such queues are asked after those that have few."""
        return self.full_since is not None

    def is_shut(self, now: float) -> bool:
        """Whether no job of it may be begun now, in seconds since the epoch as the database has them."""
        config, until = self.config, self.config.cooldown_until
        if config.paused or config.concurrency == 0 or self.throttled > 0:
            return True
        return until is not None and until.timestamp() > now

    def may_have_jobs(self, look_at: float = 0.0) -> None:
        """Look at this moment, or at once, and soon again."""
        self.look_at, self.poll, self.empty = look_at, SHORTEST_POLL, False

    def is_put_off(self, now: float) -> bool:
        """Whether it is not asked now, since a call for it failed, a job of it was throttled, or there is no token; then it is known when it is."""
        if now < self.aside_until:
            self.look_at, self.empty = self.aside_until, False
        elif self.throttled:
            self.look_at = now + SHORTEST_POLL
        elif now < self.tokens_at:  # a wake-up brings no token
            self.look_at, self.empty = self.tokens_at, self.empty or self.is_dry
        else:
            return False
        return True

    def left_alone_now(self, now: float) -> list[str]:
        """Return the kinds that this worker does not begin at this moment."""
        return [*self.paused_kinds, *(kind for kind, until in self.left_alone.items() if until > now)]

    @property
    def begins_anew(self) -> bool:
        """Whether a look begins at the very beginning, as a scout does, which then costs less than a scout after it: looks that find
        nothing for long are rare.
        """
        return self.poll >= LONGEST_POLL and self.scout_took <= QUICK

    @property
    def most(self) -> int:
        """How many jobs to claim at once, so that their payloads fit into `room`."""
        return max(1, int(self.room / max(self.mean, 1.0)))

    def jobs_in(self, slots: int) -> int:
        """How many jobs to claim for so many slots of this worker, by what the last ones took; one at least."""
        return max(1, int(slots / self.weight))

    def took(self, claims: Sequence[Claim], slots: int) -> None:
        """These jobs, which take so many slots of this worker, were claimed in one statement, in time."""
        if claims:
            self.weight += (slots / len(claims) - self.weight) / 2
            # Few jobs say little of those to come; of the first ones, many say all that is known.
            self.mean += (mean_size(claims) - self.mean) / (
                1 if self.is_unknown and len(claims) >= SAMPLE else 2
            )
            self.is_unknown = False
            self.room = min(LARGEST_ROOM, self.room + LARGE_PAYLOAD)

    def took_too_long(self, limit: int) -> None:
        """A claim of `limit` jobs was not answered in time: the next one is half as large."""
        self.mean = max(self.mean, self.room / limit)
        self.room = max(LARGE_PAYLOAD, self.room // 2)

    @property
    def limits(self) -> Limits:
        """What decides how many jobs may be claimed: those that were claimed under other limits may be too many."""
        return self.config.concurrency, self.config.rate_limit

    @property
    def is_limited(self) -> bool:
        """Whether the queue has a concurrency, so that slots are needed."""
        return self.config.concurrency is not None

    @property
    def is_claimed_ahead(self) -> bool:
        """Whether jobs may be claimed before a runner is free."""
        return not self.is_limited and self.config.rate_limit is None


def mean_size(claims: Sequence[Claim]) -> float:
    """Return how many bytes the payloads and states of these jobs have, of which there are some, by a sample of them."""
    some = claims[:: 1 + len(claims) // SAMPLE]
    return sum(len(claim.payload or b"") + len(claim.state or b"") for claim in some) / len(some)

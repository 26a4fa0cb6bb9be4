"""What a ForgeQueue says: the queue's configuration, and the workers that serve it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

from forge_jobs.model import LARGEST_WEIGHT, LONGEST_TENANT, MOST_PLACES, SMALLEST_WEIGHT
from forge_operator.specs.bounds import DAY, LONGEST_NAME, LONGEST_WHY, ONE_LINE, QUEUE_NAME, YEAR
from forge_operator.specs.fields import (
    attempts,
    choice,
    decimal,
    flag,
    moment,
    part,
    parts,
    seconds,
    text,
    whole,
)
from forge_operator.specs.section import Rule, Section, read
from forge_operator.specs.workers import WorkersSpec


class ReclaimPolicy(StrEnum):
    """What becomes of the queue's row when its ForgeQueue is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencySpec(Section):
    """How many jobs of the queue are in progress over the whole cluster."""

    limit: int | None = whole(
        "Jobs in progress at once, over all versions and pods. 0: no job is started. Absent: no limit.",
        most=100_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffSpec(Section):
    """How long a job waits after a failed attempt."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.baseSeconds <= self.maxSeconds",
            holds=lambda backoff: backoff.base <= backoff.max,
            message="baseSeconds must be at most maxSeconds",
            at=".baseSeconds",
        ),
    )

    enabled: bool = flag(
        "Whether a failed job waits before it is retried. When false it is retried at once.", default=True
    )
    base: timedelta = seconds(
        "The wait after the first failure. It doubles with each further one, and varies randomly by up to a fifth.",
        most=30 * DAY,
        default=10,
    )
    max: timedelta = seconds("The longest wait.", most=30 * DAY, default=1800)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitSpec(Section):
    """How many jobs of the queue may start per period, over the whole cluster."""

    limit: int = whole("Jobs that may start per period.", least=1, most=1_000_000_000, required=True)
    period: timedelta = seconds("The length of a period.", least=1, most=DAY, required=True)
    burst: int | None = whole(
        "Jobs that may start at once after a quiet time. Absent: the same as limit.",
        least=1,
        most=1_000_000_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsSpec(Section):
    """The groups of the queue's jobs."""

    limit: int | None = whole(
        "How many jobs of a group may be pending or in progress at once, for groups whose limit nobody has said. "
        "Absent: 1.",
        least=1,
        most=MOST_PLACES,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantWeightSpec(Section):
    """How many turns a tenant has."""

    tenant: str = text("The tenant.", most=LONGEST_TENANT, required=True)
    weight: float = decimal(
        "How many turns it has for each one of a tenant of weight 1.",
        least=SMALLEST_WEIGHT,
        most=LARGEST_WEIGHT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantsSpec(Section):
    """The tenants of the queue's jobs."""

    weights: tuple[TenantWeightSpec, ...] = parts(
        "The tenants whose weights are not 1. Weights of other tenants that were set elsewhere are taken back.",
        TenantWeightSpec,
        key="tenant",
        most=1_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSpec(Section):
    """How long ended jobs are kept."""

    done: timedelta = seconds(
        "How long done jobs are kept. 0: they are deleted at once.", most=10 * YEAR, default=7 * DAY
    )
    dead: timedelta = seconds(
        "How long dead jobs are kept. 0: they are deleted at once.", most=10 * YEAR, default=30 * DAY
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSpec(Section):
    """The spec of a ForgeQueue."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="!has(self.pausedUntil) || self.paused",
            holds=lambda queue: queue.paused_until is None or queue.paused,
            message="pausedUntil goes with paused: true",
            at=".pausedUntil",
        ),
        Rule(
            cel="!has(self.pausedWhy) || self.paused",
            holds=lambda queue: queue.paused_why is None or queue.paused,
            message="pausedWhy goes with paused: true",
            at=".pausedWhy",
        ),
    )

    queue_name: str | None = text(
        "The queue's name in the database. Absent: the name of this object. It cannot be changed.",
        most=LONGEST_NAME,
        pattern=QUEUE_NAME,
    )
    paused: bool = flag(
        "When true, no job of the queue is started; jobs in progress go on. Workers follow within seconds.",
        default=False,
    )
    paused_until: datetime | None = moment(
        "When the pause ends: from then on the queue is as if paused were false. Absent: when paused is false."
    )
    paused_why: str | None = text(
        "Why it is paused, for whoever asks why a job waits.", most=LONGEST_WHY, pattern=ONE_LINE
    )
    concurrency: ConcurrencySpec = part(
        "How many jobs of the queue are in progress over the whole cluster.", ConcurrencySpec
    )
    backoff: BackoffSpec = part("How long a job waits after a failed attempt.", BackoffSpec)
    max_attempts: int = attempts(
        "Attempts of a job that sets no number itself; after the last failure it is dead. 1: no retry. -1: no limit.",
        name="maxAttempts",
        default=5,
    )
    timeout: timedelta | None = seconds(
        "How long an attempt may take, for jobs that do not set their own timeout. Absent: no limit.",
        least=1,
        most=YEAR,
    )
    rate_limit: RateLimitSpec | None = part(
        "How many jobs of the queue may start per period, over the whole cluster. Absent: no limit.",
        RateLimitSpec,
        optional=True,
    )
    age_after: timedelta | None = seconds(
        "Each time that a job has been pending for so long, its priority becomes smaller by 1, so that it starts "
        "sooner. Absent: priorities stay.",
        least=1,
        most=YEAR,
    )
    groups: GroupsSpec = part("The groups of the queue's jobs.", GroupsSpec)
    tenants: TenantsSpec | None = part(
        "How many turns the tenants of the queue's jobs have. Absent: their weights are set elsewhere, and stay.",
        TenantsSpec,
        optional=True,
    )
    retention: RetentionSpec = part("How long ended jobs are kept.", RetentionSpec)
    reclaim_policy: ReclaimPolicy = choice(
        "What happens to the queue when this object is deleted. Retain: it stays, without an owner. Delete: it is deleted "
        "once it is empty, and a finalizer keeps this object until then. Jobs are never deleted.",
        ReclaimPolicy,
        default=ReclaimPolicy.RETAIN,
    )
    workers: WorkersSpec | None = part(
        "The workers that serve the queue. Absent: the queue is only configured, and other workers serve it.",
        WorkersSpec,
        optional=True,
    )

    def is_paused(self, now: datetime) -> bool:
        """Whether the queue is paused at this moment."""
        return self.paused and (self.paused_until is None or now < self.paused_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeQueue:
    """A ForgeQueue as a whole."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="(has(self.spec.queueName) ? self.spec.queueName : self.metadata.name)"
            " == (has(oldSelf.spec.queueName) ? oldSelf.spec.queueName : oldSelf.metadata.name)",
            holds=lambda queue: queue.recorded_queue in (None, queue.queue),
            message="queueName cannot be changed: another name is another queue",
            at=".spec.queueName",
            reason="FieldValueForbidden",
        ),
    )

    namespace: str
    name: str
    spec: QueueSpec
    uid: str = ""
    generation: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)
    recorded_queue: str | None = None  # the queue that its status says it configures

    @property
    def queue(self) -> str:
        """The name of its queue in the database."""
        return self.spec.queue_name or self.name

    @property
    def served(self) -> tuple[str, ...]:
        """The queues that its workers serve, its own first."""
        others = self.spec.workers.queues if self.spec.workers else ()
        return tuple(dict.fromkeys((self.queue, *others)))


def read_queue(resource: Mapping[str, Any]) -> ForgeQueue:
    """Return what a ForgeQueue, as the API server gave it, says.

    Raises InvalidSpec with one sentence, also for what an API server without CEL has let pass.
    """
    metadata = resource["metadata"]
    queue = ForgeQueue(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        spec=read(QueueSpec, resource.get("spec"), "spec"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        annotations=metadata.get("annotations") or {},
        recorded_queue=(resource.get("status") or {}).get("queueName"),
    )
    for rule in ForgeQueue.RULES:
        rule.check(queue, "")
    return queue

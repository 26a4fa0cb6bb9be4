"""What the status of a custom resource can say: conditions, and reasons for them.

The plan picks from here, and the documentation lists it. Each member carries its sentence; `REASONS`
says which reasons a condition may give, and which status goes with each.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Truth(StrEnum):
    """The status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StrEnum):
    """The type of a condition; `meaning` says what True means."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Condition":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    READY = "Ready", "The object is in the database, and its workers serve it."
    SYNCED = "Synced", "The configuration of the object is in the database."
    DATABASE_REACHABLE = "DatabaseReachable", "The operator can read and write the database."
    PROGRESSING = "Progressing", "The requested version serves, or is being rolled out."
    SCALING_ACTIVE = "ScalingActive", "The operator decides how many pods there are."
    SCALING_LIMITED = "ScalingLimited", "A limit keeps the number of pods from following the work."
    KINDS_HANDLED = (
        "KindsHandled",
        "As far as is known, every job that is due, or that the cron enqueues, has a handler among the workers of its queue.",
    )
    PROTECTED = (
        "Protected",
        "A PodDisruptionBudget limits evictions of the pods, as spec.workers.disruption requests.",
    )
    PAUSED = (
        "Paused",
        "No job of the queue is started, the cron does not fire, or the operator does not touch the object.",
    )
    DELETION_BLOCKED = "DeletionBlocked", "The object is being deleted and waits until its queue is empty."


class ConditionReason(StrEnum):
    """Why a condition is as it is; `meaning` says it in a sentence."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "ConditionReason":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # Ready
    SERVING = (
        "Serving",
        "The queue is configured, and a version with ready pods serves it, or has no pods because there is no work.",
    )
    CONFIGURED = "Configured", "The configuration is in the database; the object has no workers of its own."
    RECONCILING = (
        "Reconciling",
        "The object is new or was changed, and the change is not applied everywhere yet.",
    )
    NO_READY_PODS = "NoReadyPods", "There is work to do, and no pod of the current version is ready."

    # Synced
    CONFIG_APPLIED = "ConfigApplied", "The database holds the configuration of the object."
    INVALID_SPEC = (
        "InvalidSpec",
        "A field of the object has a value that is not allowed; nothing was changed.",
    )
    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "The schedule or the time zone is not valid, or the schedule never fires.",
    )
    UNKNOWN_QUEUE = "UnknownQueue", "The database has no queue with the name in the object."
    QUEUE_NAME_CONFLICT = (
        "QueueNameConflict",
        "Another object owns the queue with this name and keeps it.",
    )
    CRON_NAME_CONFLICT = "CronNameConflict", "Another owner has the cron with this name and keeps it."
    SCHEMA_TOO_OLD = "SchemaTooOld", "The database's schema is older than this operator; migrate it."
    SCHEMA_TOO_NEW = "SchemaTooNew", "The database's schema is newer than this operator; update the operator."

    ACTION_FAILED = (
        "ActionFailed",
        "The API server or the database refused an action; it is tried again within a minute.",
    )

    # DatabaseReachable
    CONNECTED = "Connected", "The database answers and accepts writes."
    DATABASE_UNREACHABLE = (
        "DatabaseUnreachable",
        "The database does not answer, so nothing is scaled down or deleted.",
    )
    CONNECTION_FAILED = "ConnectionFailed", "A connection to the database cannot be made."
    AUTH_FAILED = "AuthFailed", "The database refuses the user or the password."
    TLS_FAILED = "TLSFailed", "An encrypted connection to the database cannot be made."
    READ_ONLY = "ReadOnly", "The database accepts no writes: it is a replica, or set to read-only."

    # Progressing
    NO_WORKERS = "NoWorkers", "The object has no workers of its own."
    ROLLOUT_COMPLETE = "RolloutComplete", "The requested version serves, and no older one has jobs."
    WAITING_FOR_PODS = (
        "WaitingForPods",
        "Pods of the requested version are not ready yet; an older version serves meanwhile, if there is one.",
    )
    PROMOTING = "Promoting", "The new version is ready and takes over."
    RAMPING = "Ramping", "The new version has a growing share of the slots."
    DRAINING = "Draining", "The new version serves; jobs of an old one are still running."
    DRAIN_OVERDUE = "DrainOverdue", "Jobs of an old version have run for longer than drain.timeoutSeconds."
    AWAITING_PROMOTION = (
        "AwaitingPromotion",
        "The new version is ready and waits to be promoted by the annotation forge-jobs.dev/promote.",
    )
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "The new version was not ready in time; the old one keeps serving.",
    )
    TOO_MANY_VERSIONS = (
        "TooManyVersions",
        "As many versions as rollout.maxActiveVersions have workers; the new one waits until an older one has drained.",
    )
    INVALID_TEMPLATE = "InvalidTemplate", "The API server refuses the pod template; nothing was rolled out."
    IDENTITY_COLLISION = (
        "IdentityCollision",
        "The version's id is already taken by a Deployment or a row that was made from something else.",
    )
    INCONCLUSIVE = (
        "Inconclusive",
        "The pause of a rollout step is over, but there is too little evidence to judge the new version.",
    )
    ROLLOUT_ABORTED = (
        "RolloutAborted",
        "The new version was judged worse than the old one, which serves again; the message says why.",
    )

    # ScalingActive
    SCALING = "Scaling", "The number of pods follows the work."
    FIXED_REPLICAS = (
        "FixedReplicas",
        "The number of pods is spec.workers.replicas.",
    )
    OBSERVING = (
        "Observing",
        "The annotation forge-jobs.dev/autoscaling asks to show the decision without acting on it.",
    )
    FALLBACK = (
        "Fallback",
        "The database does not answer, so there are at least autoscaling.fallbackReplicas pods.",
    )
    STALE_SIGNAL = (
        "StaleSignal",
        "The measurements are too old to decide by; the number of pods does not change.",
    )

    # ScalingLimited
    WITHIN_RANGE = "WithinRange", "No limit keeps the number of pods from following the work."
    AT_MIN_REPLICAS = "AtMinReplicas", "The work needs fewer pods than minReplicas."
    AT_MAX_REPLICAS = "AtMaxReplicas", "The work needs more pods than maxReplicas."
    CONCURRENCY_LIMIT = (
        "ConcurrencyLimit",
        "More pods would have nothing to do: the queue's concurrency limit is reached.",
    )
    RATE_LIMIT = "RateLimit", "More pods would have nothing to do: the queue's rate limit is reached."
    DATABASE_CONNECTION_BUDGET = (
        "DatabaseConnectionBudget",
        "The database does not have enough connections left for more pods.",
    )
    UNSCHEDULABLE = "Unschedulable", "Pods cannot be scheduled or started, so more of them would not help."

    # KindsHandled
    ALL_HANDLED = "AllHandled", "As far as is known, every job that is due has a handler."
    UNHANDLED_KINDS = (
        "UnhandledKinds",
        "No worker of the queue has a handler for the kinds of some jobs; no pod is started for these jobs.",
    )

    # Protected
    BUDGET_IN_PLACE = "BudgetInPlace", "The requested PodDisruptionBudget exists."
    NO_BUDGET = "NoBudget", "No PodDisruptionBudget is requested, or no version has had jobs yet."
    OTHER_BUDGET = (
        "OtherBudget",
        "Another PodDisruptionBudget selects the pods, so the operator creates none.",
    )
    BUDGETS_HIDDEN = (
        "BudgetsHidden",
        "The operator lacks the right to read PodDisruptionBudgets, which the chart grants, so it creates none.",
    )

    # Paused
    ACTIVE = "Active", "The object is not paused."
    SPEC_PAUSED = (
        "SpecPaused",
        "The spec pauses the object: no job of its queue is started, or its cron does not fire.",
    )
    ANNOTATION_PAUSED = (
        "AnnotationPaused",
        "The annotation forge-jobs.dev/paused tells the operator to change nothing.",
    )

    # DeletionBlocked
    QUEUE_NOT_EMPTY = "QueueNotEmpty", "The queue has jobs that have not ended."
    QUEUE_EMPTY = "QueueEmpty", "The queue is empty; the object is removed now."


_FAILURES_OF_SYNC = (
    ConditionReason.INVALID_SPEC,
    ConditionReason.INVALID_SCHEDULE,
    ConditionReason.UNKNOWN_QUEUE,
    ConditionReason.QUEUE_NAME_CONFLICT,
    ConditionReason.CRON_NAME_CONFLICT,
    ConditionReason.SCHEMA_TOO_OLD,
    ConditionReason.SCHEMA_TOO_NEW,
    ConditionReason.ACTION_FAILED,
)
_FAILURES_OF_DATABASE = (
    ConditionReason.CONNECTION_FAILED,
    ConditionReason.AUTH_FAILED,
    ConditionReason.TLS_FAILED,
    ConditionReason.READ_ONLY,
)
_FAILURES_OF_ROLLOUT = (
    ConditionReason.PROGRESS_DEADLINE_EXCEEDED,
    ConditionReason.TOO_MANY_VERSIONS,
    ConditionReason.INVALID_TEMPLATE,
    ConditionReason.IDENTITY_COLLISION,
    ConditionReason.ROLLOUT_ABORTED,
    ConditionReason.DATABASE_CONNECTION_BUDGET,
)


def _reasons(
    true: tuple[ConditionReason, ...] = (),
    false: tuple[ConditionReason, ...] = (),
    unknown: tuple[ConditionReason, ...] = (),
) -> Mapping[ConditionReason, Truth]:
    truths = {reason: Truth.TRUE for reason in true} | {reason: Truth.FALSE for reason in false}
    return MappingProxyType(truths | {reason: Truth.UNKNOWN for reason in unknown})


REASONS: Mapping[Condition, Mapping[ConditionReason, Truth]] = MappingProxyType(
    {
        # Ready tells the worst of the others.
        Condition.READY: _reasons(
            true=(ConditionReason.SERVING, ConditionReason.CONFIGURED),
            false=(
                ConditionReason.RECONCILING,
                ConditionReason.NO_READY_PODS,
                *_FAILURES_OF_SYNC,
                *_FAILURES_OF_ROLLOUT,
                *_FAILURES_OF_DATABASE,
            ),
            unknown=(ConditionReason.DATABASE_UNREACHABLE,),
        ),
        Condition.SYNCED: _reasons(
            true=(ConditionReason.CONFIG_APPLIED,),
            false=(ConditionReason.RECONCILING, *_FAILURES_OF_SYNC),
            unknown=(ConditionReason.DATABASE_UNREACHABLE,),
        ),
        Condition.DATABASE_REACHABLE: _reasons(
            true=(ConditionReason.CONNECTED,), false=_FAILURES_OF_DATABASE
        ),
        Condition.PROGRESSING: _reasons(
            true=(
                ConditionReason.ROLLOUT_COMPLETE,
                ConditionReason.WAITING_FOR_PODS,
                ConditionReason.PROMOTING,
                ConditionReason.RAMPING,
                ConditionReason.INCONCLUSIVE,
                ConditionReason.DRAINING,
                ConditionReason.DRAIN_OVERDUE,
            ),
            false=(
                ConditionReason.NO_WORKERS,
                ConditionReason.AWAITING_PROMOTION,
                *_FAILURES_OF_ROLLOUT,
                ConditionReason.ACTION_FAILED,
            ),
            unknown=(ConditionReason.DATABASE_UNREACHABLE,),
        ),
        Condition.SCALING_ACTIVE: _reasons(
            true=(ConditionReason.SCALING,),
            false=(
                ConditionReason.NO_WORKERS,
                ConditionReason.FIXED_REPLICAS,
                ConditionReason.OBSERVING,
                ConditionReason.FALLBACK,
                ConditionReason.STALE_SIGNAL,
                ConditionReason.ACTION_FAILED,
            ),
        ),
        Condition.SCALING_LIMITED: _reasons(
            true=(
                ConditionReason.AT_MIN_REPLICAS,
                ConditionReason.AT_MAX_REPLICAS,
                ConditionReason.CONCURRENCY_LIMIT,
                ConditionReason.RATE_LIMIT,
                ConditionReason.DATABASE_CONNECTION_BUDGET,
                ConditionReason.UNSCHEDULABLE,
            ),
            false=(ConditionReason.WITHIN_RANGE, ConditionReason.NO_WORKERS, ConditionReason.FIXED_REPLICAS),
            unknown=(ConditionReason.STALE_SIGNAL,),
        ),
        Condition.KINDS_HANDLED: _reasons(
            true=(ConditionReason.ALL_HANDLED,),
            false=(ConditionReason.UNHANDLED_KINDS,),
            unknown=(ConditionReason.DATABASE_UNREACHABLE,),
        ),
        Condition.PROTECTED: _reasons(
            true=(ConditionReason.BUDGET_IN_PLACE,),
            false=(
                ConditionReason.NO_WORKERS,
                ConditionReason.NO_BUDGET,
                ConditionReason.OTHER_BUDGET,
                ConditionReason.ACTION_FAILED,
            ),
            unknown=(ConditionReason.BUDGETS_HIDDEN,),
        ),
        Condition.PAUSED: _reasons(
            true=(ConditionReason.SPEC_PAUSED, ConditionReason.ANNOTATION_PAUSED),
            false=(ConditionReason.ACTIVE,),
        ),
        Condition.DELETION_BLOCKED: _reasons(
            true=(ConditionReason.QUEUE_NOT_EMPTY, ConditionReason.DATABASE_UNREACHABLE),
            false=(ConditionReason.QUEUE_EMPTY,),
        ),
    }
)
"""Which reasons a condition may give, and the status that goes with each."""

OF_QUEUES = tuple(Condition)
"""The conditions of a ForgeQueue; DeletionBlocked only while it is being deleted."""

OF_CRONS = (
    Condition.READY,
    Condition.SYNCED,
    Condition.DATABASE_REACHABLE,
    Condition.KINDS_HANDLED,
    Condition.PAUSED,
)
"""The conditions of a ForgeCron."""

"""What the status of a custom resource can say: conditions, and reasons for them.

Whoever plans picks from here, whoever documents lists it. Each member carries its sentence;
`REASONS` says which reasons a condition may give, and which status goes with each.
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
    """The type of a condition; `meaning` says what is so when it is True."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Condition":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    READY = "Ready", "What the object asks for is so: it is in the database, and its workers serve."
    SYNCED = "Synced", "The configuration of the object is in the database."
    DATABASE_REACHABLE = "DatabaseReachable", "The operator can read and write the database."
    PROGRESSING = "Progressing", "The version that is asked for serves, or is on its way."
    SCALING_ACTIVE = "ScalingActive", "The operator decides how many pods there are."
    SCALING_LIMITED = "ScalingLimited", "There would be more pods, or fewer, if something did not bound them."
    KINDS_HANDLED = (
        "KindsHandled",
        "For each job whose time has come, or that the cron enqueues, somebody who serves the queue may have a handler.",
    )
    PROTECTED = "Protected", "A PodDisruptionBudget holds back evictions of its pods, as asked for."
    PAUSED = "Paused", "Nothing of it is started, or the operator leaves the object alone."
    DELETION_BLOCKED = "DeletionBlocked", "The object is to be deleted and waits for its queue to be empty."


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
        "The queue is configured and a version with ready pods serves it, or sleeps with nothing to do.",
    )
    CONFIGURED = "Configured", "The configuration is in the database; the object has no workers of its own."
    RECONCILING = "Reconciling", "The object is new or was changed, and not everything has followed yet."
    NO_READY_PODS = "NoReadyPods", "There is work to do, and no pod of the current version is ready."

    # Synced
    CONFIG_APPLIED = "ConfigApplied", "The database says what the object says."
    INVALID_SPEC = "InvalidSpec", "The object says something that is not allowed; nothing was changed."
    INVALID_SCHEDULE = (
        "InvalidSchedule",
        "The schedule or the time zone cannot be understood, or never comes.",
    )
    UNKNOWN_QUEUE = "UnknownQueue", "The queue that is named is not in the database."
    QUEUE_NAME_CONFLICT = (
        "QueueNameConflict",
        "Another object owns the queue of this name; the first one stays.",
    )
    CRON_NAME_CONFLICT = "CronNameConflict", "Somebody else owns the cron of this name; the first one stays."
    SCHEMA_TOO_OLD = "SchemaTooOld", "The database's schema is older than this operator; migrate it."
    SCHEMA_TOO_NEW = "SchemaTooNew", "The database's schema is newer than this operator; update the operator."

    ACTION_FAILED = (
        "ActionFailed",
        "The API server or the database could not do what is needed; it is tried again within a minute.",
    )

    # DatabaseReachable
    CONNECTED = "Connected", "The database answers and takes writes."
    DATABASE_UNREACHABLE = (
        "DatabaseUnreachable",
        "The database cannot be asked, so nothing is known, and nothing is scaled down or deleted.",
    )
    CONNECTION_FAILED = "ConnectionFailed", "No connection to the database can be made."
    AUTH_FAILED = "AuthFailed", "The database refuses the user or the password."
    TLS_FAILED = "TLSFailed", "No encrypted connection to the database can be made."
    READ_ONLY = "ReadOnly", "The database takes no writes: it is a replica, or set to read only."

    # Progressing
    NO_WORKERS = "NoWorkers", "The object has no workers of its own."
    ROLLOUT_COMPLETE = "RolloutComplete", "The version that is asked for serves alone."
    WAITING_FOR_PODS = (
        "WaitingForPods",
        "Pods of the version that is asked for are not ready yet; one before it serves meanwhile, if there is one.",
    )
    PROMOTING = "Promoting", "The new version is ready and takes over."
    RAMPING = "Ramping", "The new version has a share of the slots, which grows."
    DRAINING = "Draining", "The new version serves; jobs of an old one still run."
    DRAIN_OVERDUE = "DrainOverdue", "Jobs of an old version have run for longer than drain.timeoutSeconds."
    AWAITING_PROMOTION = "AwaitingPromotion", "The new version is ready and waits for somebody to promote it."
    PROGRESS_DEADLINE_EXCEEDED = (
        "ProgressDeadlineExceeded",
        "The new version did not get ready in time; the old one goes on.",
    )
    TOO_MANY_VERSIONS = (
        "TooManyVersions",
        "As many versions as allowed have workers; the new one waits for an end.",
    )
    INVALID_TEMPLATE = "InvalidTemplate", "The API server refuses the pod template; nothing was rolled out."
    IDENTITY_COLLISION = "IdentityCollision", "A Deployment of the version's name exists and is another's."
    INCONCLUSIVE = (
        "Inconclusive",
        "A step of the rollout is over, and what the new version has done does not tell yet whether it may go on.",
    )
    ROLLOUT_ABORTED = (
        "RolloutAborted",
        "The new version was judged worse than the old one, which serves again; the message says by what.",
    )

    # ScalingActive
    SCALING = "Scaling", "The number of pods follows the work."
    FIXED_REPLICAS = (
        "FixedReplicas",
        "The number of pods is what spec.workers.replicas says, whoever writes it.",
    )
    OBSERVING = "Observing", "The decision is made and shown, but not acted on, as the annotation asks."
    FALLBACK = (
        "Fallback",
        "The database is not heard, and autoscaling.fallbackReplicas says how many pods there are at least.",
    )
    STALE_SIGNAL = "StaleSignal", "The numbers to decide by are too old; the number of pods is held."

    # ScalingLimited
    WITHIN_RANGE = "WithinRange", "Nothing bounds the number of pods."
    AT_MIN_REPLICAS = "AtMinReplicas", "There are minReplicas pods; there would be fewer."
    AT_MAX_REPLICAS = "AtMaxReplicas", "There are maxReplicas pods; there would be more."
    CONCURRENCY_LIMIT = (
        "ConcurrencyLimit",
        "More pods would have nothing to do: the queue's concurrency is reached.",
    )
    RATE_LIMIT = "RateLimit", "More pods would have nothing to do: the queue's rate limit is reached."
    DATABASE_CONNECTION_BUDGET = (
        "DatabaseConnectionBudget",
        "The database has not enough connections left for more pods.",
    )
    UNSCHEDULABLE = "Unschedulable", "Pods cannot be placed or started; more would wait beside them."

    # KindsHandled
    ALL_HANDLED = "AllHandled", "No job waits for a handler that nobody has, as far as is known."
    UNHANDLED_KINDS = (
        "UnhandledKinds",
        "Jobs are of kinds for which nobody who serves the queue has a handler; no pod is started for them.",
    )

    # Protected
    BUDGET_IN_PLACE = "BudgetInPlace", "There is the PodDisruptionBudget that is asked for."
    NO_BUDGET = "NoBudget", "No PodDisruptionBudget is asked for, or no version has had jobs yet."
    OTHER_BUDGET = (
        "OtherBudget",
        "Somebody else's PodDisruptionBudget selects the pods; beside it none is made.",
    )
    BUDGETS_HIDDEN = (
        "BudgetsHidden",
        "PodDisruptionBudgets may not be read, so none is made: the operator lacks a right that the chart gives.",
    )

    # Paused
    ACTIVE = "Active", "It is not paused."
    SPEC_PAUSED = (
        "SpecPaused",
        "The object says so: no job of its queue is started, or its cron does not fire.",
    )
    ANNOTATION_PAUSED = (
        "AnnotationPaused",
        "The annotation forge-jobs.dev/paused tells the operator to change nothing.",
    )

    # DeletionBlocked
    QUEUE_NOT_EMPTY = "QueueNotEmpty", "Jobs of the queue have not ended."
    QUEUE_EMPTY = "QueueEmpty", "The queue is empty; the object goes."


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
    found = {reason: Truth.TRUE for reason in true} | {reason: Truth.FALSE for reason in false}
    return MappingProxyType(found | {reason: Truth.UNKNOWN for reason in unknown})


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

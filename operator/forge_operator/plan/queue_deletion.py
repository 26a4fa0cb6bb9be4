"""How a ForgeQueue goes that is to take its queue along: only when the queue is empty. Jobs are never deleted."""

from datetime import timedelta

from forge_operator import naming
from forge_operator.conditions import Condition, ConditionReason
from forge_operator.plan.actions import (
    Action,
    DeleteLimit,
    DeleteQueue,
    EmitEvent,
    ManageQueue,
    RemoveFinalizer,
    SetQueue,
)
from forge_operator.plan.assessment import Assessment
from forge_operator.specs import QueueSpec, ReclaimPolicy
from forge_operator.state.observed import DatabaseState, Observed, QueueObject, Unknown
from forge_operator.words import count

PATIENCE = timedelta(minutes=10)
"""How long a deletion waits for a database that does not answer: nobody's namespace hangs for longer.

It counts from the first look that could not ask, not from the deletion: that may have waited for jobs for hours.
"""


def finish(observed: Observed) -> list[Action] | None:
    """Return the actions that let the object be deleted; None when it still has to wait."""
    owner = observed.queue
    let_go = RemoveFinalizer(owner.namespace, owner.name)
    if isinstance(observed.database, Unknown):
        silent_for = observed.now - (observed.memory.unheard_since or observed.now)
        if silent_for < PATIENCE and not is_forced(owner):
            return None
        message = "The rows of the queue stay in the database, which could not be reached."
        return [EmitEvent("Warning", "OrphanedRows", message), let_go]
    manager = naming.owner_of_rows("ForgeQueue", owner.namespace, owner.name)
    keeps = not isinstance(owner.spec, QueueSpec) or owner.spec.reclaim_policy is ReclaimPolicy.RETAIN
    if keeps or is_forced(owner):
        return [*dismiss(manager, observed.database), let_go]
    if jobs_left(owner, observed.database):
        return None
    return [*remove(manager, observed.database), let_go]


def is_forced(owner: QueueObject) -> bool:
    """Whether the annotation asks to delete the object even if its queue has jobs."""
    return owner.annotations.get(naming.FORCE_DELETE) == "true"


def jobs_left(owner: QueueObject, database: DatabaseState) -> int:
    """Return how many jobs of the queue have not ended; 0 when the queue is not the object's."""
    manager = naming.owner_of_rows("ForgeQueue", owner.namespace, owner.name)
    names = {queue.name for queue in database.queues if queue.managed_by == manager}
    return sum(
        queue_counts.pending
        + queue_counts.scheduled
        + queue_counts.blocked
        + queue_counts.waiting
        + queue_counts.in_progress
        for queue_counts in database.counts
        if queue_counts.queue in names
    )


def dismiss(manager: str, database: DatabaseState) -> list[Action]:
    """Let nobody manage the queues of `manager`, and delete the rate limits that belong to them."""
    scopes = {limit.scope for limit in database.limits if limit.managed_by == manager}
    queues = [queue for queue in database.queues if queue.managed_by == manager]
    # From a queue that names a limit which is gone, nobody would ever start a job.
    return [
        *(
            SetQueue(queue.name, {"rate_limit": None}, manager)
            for queue in queues
            if queue.rate_limit in scopes
        ),
        *(DeleteLimit(scope, manager) for scope in sorted(scopes)),
        *(ManageQueue(queue.name, None, manager) for queue in queues),
    ]


def remove(manager: str, database: DatabaseState) -> list[Action]:
    """Delete the rows of `manager`: first the queue, which names its rate limit."""
    return [
        *(DeleteQueue(queue.name, manager) for queue in database.queues if queue.managed_by == manager),
        *(DeleteLimit(limit.scope, manager) for limit in database.limits if limit.managed_by == manager),
    ]


def assessments(observed: Observed) -> dict[Condition, Assessment]:
    """Return the condition DeletionBlocked; none while the object is not being deleted."""
    if observed.queue.deleting_since is None:
        return {}
    if isinstance(observed.database, Unknown):
        return {
            Condition.DELETION_BLOCKED: Assessment(
                ConditionReason.DATABASE_UNREACHABLE, observed.database.message
            )
        }
    left = jobs_left(observed.queue, observed.database)
    if not left:
        return {Condition.DELETION_BLOCKED: Assessment(ConditionReason.QUEUE_EMPTY)}
    left_over = count(left, "job", ("has", "have"))
    message = f"{left_over} not ended; set annotation {naming.FORCE_DELETE}=true to let the object go without its queue."
    return {Condition.DELETION_BLOCKED: Assessment(ConditionReason.QUEUE_NOT_EMPTY, message)}

"""Brings the configuration of a ForgeQueue into the rows of its queue; a row that is right is not written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from forge_jobs import QueueConfig
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import (
    Action,
    DeleteLimit,
    EmitEvent,
    EnsureQueues,
    ManageQueue,
    SetLimit,
    SetQueue,
    SetTenantWeights,
)
from forge_operator.specs import QueueSpec
from forge_operator.state.observed import DatabaseState, QueueObject
from forge_operator.words import printable


@dataclass(frozen=True, slots=True)
class Sync:
    """What to write, and what to report about it. `reason` is a reason of the condition Synced."""

    actions: tuple[Action, ...]
    reason: ConditionReason
    message: str

    @property
    def is_ours(self) -> bool:
        """Whether the queue belongs to the object, so that the rest of the plan may be carried out."""
        return self.reason is not ConditionReason.QUEUE_NAME_CONFLICT


def wanted_changes(name: str, spec: QueueSpec, now: datetime) -> dict[str, Any]:
    """Return the configuration in the spec at this moment, in the words of `forge.queues.set`."""
    is_paused = spec.is_paused(now)
    return {
        "concurrency": spec.concurrency.limit,
        "paused": is_paused,
        "paused_until": spec.paused_until if is_paused else None,
        "pause_reason": printable(spec.paused_why) if is_paused and spec.paused_why else None,
        "backoff_enabled": spec.backoff.enabled,
        "backoff_base": spec.backoff.base,
        "backoff_max": spec.backoff.max,
        "max_attempts": spec.max_attempts,
        "timeout": spec.timeout,
        "rate_limit": None if spec.rate_limit is None else naming.limit_scope(name),
        "age_after": spec.age_after,
        "group_limit": spec.groups.limit,
        "done_retention": spec.retention.done,
        "dead_retention": spec.retention.dead,
    }


def plan_configuration(
    owner: QueueObject, spec: QueueSpec, database: DatabaseState, *, was_synced: bool
) -> Sync:
    """Plan the rows of the spec: queue, rate limit and further queues. The first owner of a queue keeps it."""
    name = naming.queue_name(owner.name, spec)
    manager = naming.owner_of_rows("ForgeQueue", owner.namespace, owner.name)
    row = next((candidate for candidate in database.queues if candidate.name == name), None)
    if row is not None and row.managed_by not in (None, manager):
        message = f"Queue {name!r} belongs to {row.managed_by}."
        return Sync((), ConditionReason.QUEUE_NAME_CONFLICT, message)
    limits = limit_actions(name, spec, database, manager)
    if limits is None:
        message = f"The rate limit {naming.limit_scope(name)!r} belongs to another owner."
        return Sync((), ConditionReason.QUEUE_NAME_CONFLICT, message)
    # A queue names a rate limit that exists: it is made before, and taken away after.
    made = [limit for limit in limits if isinstance(limit, SetLimit)]
    taken_away = [limit for limit in limits if not isinstance(limit, SetLimit)]
    queue = queue_actions(row, name, spec, manager, database.now)
    actions = [
        *made,
        *queue,
        *taken_away,
        *weight_actions(name, spec, database),
        *served_queues(spec, database),
    ]
    if actions and was_synced and not ends_pause(spec, actions):
        actions.append(
            EmitEvent(
                "Normal",
                "DriftRepaired",
                f"The configuration of queue {name!r} differed from the object and was written again.",
            )
        )
    return Sync(tuple(actions), ConditionReason.CONFIG_APPLIED, f"Queue {name!r} is configured.")


def ends_pause(spec: QueueSpec, actions: Sequence[Action]) -> bool:
    """Whether all that is to be done is to end a pause whose time is over: then nobody has meddled with the rows."""
    return spec.paused and all(
        isinstance(action, SetQueue)
        and action.changes == dict.fromkeys(QueueConfig.PAUSE) | {"paused": False}
        for action in actions
    )


def queue_actions(
    row: QueueConfig | None, name: str, spec: QueueSpec, manager: str, now: datetime
) -> list[Action]:
    """Take over the queue's row, and write what the spec says at this moment."""
    wanted = wanted_changes(name, spec, now)
    if row is None:
        return [SetQueue(name, wanted, manager)]
    changes = {key: value for key, value in wanted.items() if getattr(row, key) != value}
    if changes.keys() & QueueConfig.PAUSE:  # what is said of a pause is said as a whole
        changes |= {key: wanted[key] for key in QueueConfig.PAUSE}
    if changes:
        return [SetQueue(name, changes, manager)]  # which also takes a row that is nobody's
    return [ManageQueue(name, manager)] if row.managed_by is None else []


def limit_actions(name: str, spec: QueueSpec, database: DatabaseState, manager: str) -> list[Action] | None:
    """Write or delete the queue's rate limit; None when it belongs to another owner."""
    scope = naming.limit_scope(name)
    row = next((limit for limit in database.limits if limit.scope == scope), None)
    if spec.rate_limit is None:
        return [DeleteLimit(scope, manager)] if row is not None and row.managed_by == manager else []
    if row is not None and row.managed_by not in (None, manager):
        return None
    capacity = float(spec.rate_limit.burst or spec.rate_limit.limit)
    refill = spec.rate_limit.limit / spec.rate_limit.period.total_seconds()
    if row is not None and (row.capacity, row.refill, row.managed_by) == (capacity, refill, manager):
        return []
    return [SetLimit(scope, capacity, refill, manager)]


def weight_actions(name: str, spec: QueueSpec, database: DatabaseState) -> list[Action]:
    """Write the weights of the queue's tenants, if the spec says any or none; else they are left alone."""
    if spec.tenants is None:
        return []
    wanted = {tenant.tenant: tenant.weight for tenant in spec.tenants.weights if tenant.weight != 1}
    return [] if database.tenant_weights.get(name, {}) == wanted else [SetTenantWeights(name, wanted)]


def served_queues(spec: QueueSpec, database: DatabaseState) -> list[Action]:
    """Create the further queues that the workers serve, so that a worker can start."""
    if spec.workers is None:
        return []
    known = {queue.name for queue in database.queues}
    missing = tuple(queue for queue in spec.workers.queues if queue not in known)
    return [EnsureQueues(missing)] if missing else []

"""Protects pods from evictions: a PodDisruptionBudget for each pool, and marks on pods that run long jobs.

A short job ends within the grace period of its pod, however the pod is removed; a long job starts again.
So a pod is not marked when it is busy, which may change many times a second, but when it has run a job
for long, and for a while after that.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.model import VersionState
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import Action, ApplyBudget, DeleteBudget, MarkPod
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.deployment.deployment import owner_reference
from forge_operator.plan.plan import Part, Strand
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.shrink import FIRST_TO_GO, PodLoad, holdings
from forge_operator.specs import BudgetChoice, DisruptionSpec
from forge_operator.state.observed import Budget, Deployment, Pod

CALM = timedelta(seconds=60)
"""How long a pod must have run no long job before its marks are removed."""

MOST_AT_ONCE = 20
"""Pods of a pool whose marks are changed in one look: each is a write of its own."""

LAST_TO_GO = 1000
"""The deletion cost of a pod that runs a long job."""

MAY_HAVE_JOBS = frozenset({VersionState.RAMPING, VersionState.CURRENT, VersionState.DRAINING})
"""States of versions whose pods a budget selects. Pods of a version that never got ready would use it up."""

LABELS = {naming.LONG_JOBS: "true"}
ANNOTATIONS = {naming.SAFE_TO_EVICT: "false", naming.DO_NOT_DISRUPT: "true"}
MARKS = (*LABELS, *ANNOTATIONS)


def strands(pool: Pool) -> tuple[Strand, ...]:
    """Plan the budget and the marks of pods, each mark apart: a pod that cannot be marked holds up no other."""
    return (
        Strand(Part.DISRUPTION, tuple(budget(pool)), "budget"),
        *(Strand(Part.DISRUPTION, (mark,), mark.pod) for mark in marks(pool)),
    )


# --- the budget ---


def budget(pool: Pool) -> list[Action]:
    """Return the next step towards the requested budget."""
    if pool.cluster.budgets_hidden is not None:
        return []
    present, wanted = pool.cluster.budget, manifest(pool)
    if wanted is None:
        return [] if present is None or is_left(pool) else [delete(pool, present)]
    if present is None:
        return [ApplyBudget(pool.owner.namespace, wanted["metadata"]["name"], wanted)]
    if present.is_other_kind:
        return [delete(pool, present)]
    if present.edit is None and present.asked == wanted["metadata"]["annotations"][naming.BUDGET_HASH]:
        return []
    return [ApplyBudget(pool.owner.namespace, present.name, wanted, present.edit)]


def is_left(pool: Pool) -> bool:
    """Whether the budget stays as it is: there are to be no workers any more, and some still finish their jobs."""
    return pool.workers_spec is None and bool(pool.cluster.pods)


def delete(pool: Pool, present: Budget) -> DeleteBudget:
    """Return the action that deletes the budget."""
    return DeleteBudget(pool.owner.namespace, present.name, present.uid, pool.settings.policy_version)


def manifest(pool: Pool) -> dict[str, Any] | None:
    """Return the manifest of the requested budget; None when there is to be none."""
    spec = budget_spec(pool)
    if spec is None or pool.cluster.budget_of_others is not None:
        return None
    owner = pool.owner
    return {
        "apiVersion": pool.settings.policy_version,
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": naming.budget_name(owner.name),
            "namespace": owner.namespace,
            "labels": naming.pool_labels(owner.name, owner.uid),
            "annotations": {naming.BUDGET_HASH: naming.digest(spec).hex()[:16]},
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": spec,
    }


def budget_spec(pool: Pool) -> dict[str, Any] | None:
    """Return the spec of the budget; None when none is requested, or no version may have jobs."""
    asked = disruption(pool)
    versions = sorted(version.id for version in pool.versions.values() if version.state in MAY_HAVE_JOBS)
    if pool.workers_spec is None or asked.budget is BudgetChoice.NONE or not versions:
        return None
    of_pool = {naming.POOL_UID: pool.uid}
    if asked.budget is BudgetChoice.LONG_JOBS:
        return {"maxUnavailable": 0, "selector": {"matchLabels": of_pool | LABELS}}
    of_versions = {"key": naming.VERSION_ID, "operator": "In", "values": versions}
    spec = {
        "maxUnavailable": asked.max_unavailable,
        "selector": {"matchLabels": of_pool, "matchExpressions": [of_versions]},
    }
    return spec | ({"unhealthyPodEvictionPolicy": "AlwaysAllow"} if pool.settings.evicts_unhealthy else {})


def disruption(pool: Pool) -> DisruptionSpec:
    """Return the section `disruption` of the object."""
    return pool.workers_spec.disruption if pool.workers_spec else DisruptionSpec()


def protected(pool: Pool) -> Assessment:
    """Return what Protected says."""
    cluster = pool.cluster
    if pool.workers_spec is None:
        return Assessment(ConditionReason.NO_WORKERS)
    if disruption(pool).budget is BudgetChoice.NONE:
        return Assessment(ConditionReason.NO_BUDGET)
    if cluster.budgets_hidden is not None:
        return Assessment(ConditionReason.BUDGETS_HIDDEN, cluster.budgets_hidden)
    if cluster.budget_of_others is not None:
        return Assessment(
            ConditionReason.OTHER_BUDGET,
            f"The PodDisruptionBudget {cluster.budget_of_others!r} selects the pods, so the operator creates none: "
            "a pod that two budgets select cannot be evicted at all.",
        )
    return Assessment(
        ConditionReason.NO_BUDGET if cluster.budget is None else ConditionReason.BUDGET_IN_PLACE
    )


# --- the marks ---


def marks(pool: Pool) -> list[MarkPod]:
    """Return the changes of marks that are due, at most MOST_AT_ONCE: first those of pods that run the longest."""
    changes = [
        (since or pool.database.now, change)
        for version in pool.versions.values()
        for held in holdings(pool, version.id)
        if (change := marked(pool, held, since := long_since(pool, held))) is not None
    ]
    changes.sort(key=lambda change: change[0])
    return [change for _, change in changes[:MOST_AT_ONCE]]


def marked(pool: Pool, held: PodLoad, since: datetime | None) -> MarkPod | None:
    """Return the action that gives the pod its marks; None when it has them."""
    pod, asked = held.pod, disruption(pool)
    is_kept = since is not None or (naming.LONG_JOBS in pod.marks and not is_calm(pool, pod))
    deployment = pool.deployments.get(pod.version_id)
    annotations = own_annotations(pod, deployment)
    wanted = annotations if is_kept and asked.mark_pods else {}
    labels = LABELS if is_kept and (asked.mark_pods or asked.budget is BudgetChoice.LONG_JOBS) else {}
    changed: dict[str, str | None] = {
        **changed_to(wanted, annotations, pod.marks),
        **cost(pool, pod, is_kept=bool(wanted)),
    }
    relabelled = changed_to(labels, LABELS, pod.marks)
    if not changed and not relabelled:
        return None
    return MarkPod(pool.owner.namespace, pod.name, relabelled, changed)


def own_annotations(pod: Pod, deployment: Deployment | None) -> dict[str, str]:
    """Return the annotations that are ours to write: what a template or people say of a pod stays.

    Those that are there are ours with our label beside them, since one write makes and takes away both.
    """
    by_template = deployment.annotated if deployment else frozenset()
    is_marked = naming.LONG_JOBS in pod.marks
    return {
        name: value
        for name, value in ANNOTATIONS.items()
        if name not in by_template and (name not in pod.marks or (is_marked and pod.marks[name] == value))
    }


def changed_to(
    wanted: Mapping[str, str], ours: Iterable[str], present: Mapping[str, str]
) -> dict[str, str | None]:
    """Return the changes of our annotations; None as a value removes one."""
    return {name: wanted.get(name) for name in ours if present.get(name) != wanted.get(name)}


def cost(pool: Pool, pod: Pod, *, is_kept: bool) -> dict[str, str | None]:
    """Return the change of the deletion cost. One that marks the pod as the first to go, or that somebody else set, stays."""
    if not pool.settings.honours_deletion_cost or pod.deletion_cost == FIRST_TO_GO:
        return {}
    if is_kept and pod.deletion_cost is None:
        return {naming.DELETION_COST: str(LAST_TO_GO)}
    return {naming.DELETION_COST: None} if not is_kept and pod.deletion_cost == LAST_TO_GO else {}


def long_since(pool: Pool, held: PodLoad) -> datetime | None:
    """Return since when the pod runs its oldest job, if that is long ago."""
    since = min((worker.busy_since for worker in held.workers if worker.busy_since is not None), default=None)
    is_long = since is not None and pool.database.now - since >= disruption(pool).long_after
    return since if is_long else None


def is_calm(pool: Pool, pod: Pod) -> bool:
    """Whether all recent looks found that the pod ran no long job."""
    since = pool.memory.calm_since.get(pod.uid)
    return since is not None and pool.now - since >= CALM


def calm_since(pool: Pool) -> dict[str, datetime]:
    """Return since when each marked pod has run no long job, for the memory."""
    return {
        held.pod.uid: pool.memory.calm_since.get(held.pod.uid, pool.now)
        for version in pool.versions.values()
        for held in holdings(pool, version.id)
        if naming.LONG_JOBS in held.pod.marks and long_since(pool, held) is None
    }

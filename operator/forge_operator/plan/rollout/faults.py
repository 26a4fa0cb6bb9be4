"""What makes a version go back: it crashes, or its jobs fail, hang or are slow, or it never gets ready."""

from datetime import timedelta

from forge_operator.plan.rollout.case import (
    ABORT_RATIO,
    Case,
    as_kubernetes_says,
    available,
    pods_of,
    share_since,
    slots,
)
from forge_operator.plan.rollout.late_jobs import hung_jobs, percentage
from forge_operator.plan.rollout.restarts import crashes_of, restarted_pods, restarts_of
from forge_operator.words import count, seconds

SHORTEST_SLOWDOWN = 0.05
"""Seconds below which no job counts as slow: other work of the machine takes longer than such a handler."""

WARM_UP = timedelta(minutes=2)
"""How long a version may be slow before that is judged, unless its step ends sooner."""


def crashing(case: Case) -> str | None:
    """Return that its containers are started again and again, or its workers fall silent."""
    crashes, usual = crashes_of(case, case.version), crashes_of(case, case.before)
    per_pod, per_pod_before = crashes / pods_of(case, case.version), usual / pods_of(case, case.before)
    if crashes <= case.abort.max_restarts or per_pod <= ABORT_RATIO * per_pod_before:
        return None
    restarts = restarts_of(case, case.version)
    if restarts <= case.abort.max_restarts:
        lost = count(case.record.workers_lost, "worker")
        return f"{lost} of {case.name} fell silent{as_kubernetes_says(case)}"
    killed = sum(pod.out_of_memory for pod in restarted_pods(case, case.version))
    how = "OOMKilled" if killed else "restarted"
    return f"Containers of {case.name} were {how} {count(restarts, 'time')}{as_kubernetes_says(case)}"


def failing(case: Case) -> str | None:
    """Return that its jobs fail, time out, hang or are lost too often."""
    record, before = case.record, case.judged_by
    hung = hung_jobs(case).own
    jobs = record.ended + hung
    if jobs < case.abort.min_samples:
        return None
    percent, usual = percentage(record.failures + hung, jobs), percentage(before.failures, before.ended)
    if percent <= case.abort.max_failure_percent or percent <= ABORT_RATIO * usual:
        return None
    kinds = (
        (record.failed - record.timed_out, "failed"),
        (record.timed_out, "timed out"),
        (record.lost, "lost with their worker"),
        (hung, "hanging"),
    )
    how = ", ".join(f"{number} {word}" for number, word in kinds if number)
    return (
        f"{percent:.0f} % of {count(jobs, 'job')} of {case.name} failed ({how}), "
        f"{usual:.0f} % of those of the previous version"
    )


def hanging(case: Case) -> str | None:
    """Return that most jobs that it runs should have ended long ago."""
    hung = hung_jobs(case)
    enough = min(case.abort.min_samples, slots(case) * case.abort.max_failure_percent / 100)
    if hung.own < max(1, enough) or not hung.are_too_many(case.abort):
        return None
    running = sum(case.version.running.values())
    return (
        f"{hung.own} of {count(running, 'running job')} of {case.name} hang: they have run for more than "
        f"{seconds(hung.patience)}, {case.abort.hang_factor} times the 99th percentile of the previous version"
    )


def slow(case: Case) -> str | None:
    """Return that its jobs take many times as long."""
    if case.left > timedelta(0) and case.pool.database.now - share_since(case) < WARM_UP:
        return None
    record, before = case.record, case.judged_by
    if sum(record.durations.values()) < case.abort.min_samples:
        return None
    median, usual = record.quantile(0.5), before.quantile(0.5)
    if median is None or usual is None or median < SHORTEST_SLOWDOWN:
        return None
    if median <= case.abort.max_slowdown_factor * usual:
        return None
    return (
        f"Half of the jobs of {case.name} take more than {seconds(median)}, "
        f"{median / usual:.0f} times as long as those of the previous version"
    )


def unready(case: Case) -> str | None:
    """Say so when none of the version's pods has been ready for long."""
    if available(case) or case.left > -case.spec.rollout.progress_deadline:
        return None
    return f"No pod of {case.name} is ready{as_kubernetes_says(case)}"

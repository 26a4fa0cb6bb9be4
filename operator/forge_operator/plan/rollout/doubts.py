"""What leaves a version undecided when its step is over."""

from collections.abc import Iterator

from forge_jobs.model import TrackRecord, Version
from forge_operator.plan.rollout.case import Case, as_kubernetes_says, available
from forge_operator.plan.rollout.late_jobs import LATE, late_jobs
from forge_operator.plan.rollout.readiness import SETTLE
from forge_operator.plan.rollout.restarts import has_lasted, restarted_pods
from forge_operator.words import count, seconds


def doubts(case: Case) -> Iterator[str]:
    """Yield the reasons why the version cannot be judged yet, the most telling first."""
    late = late_jobs(case, case.usual_time, LATE)
    if late.are_too_many(case.abort):
        yield (
            f"{count(late.own, 'running job')} of {case.name} {'has' if late.own == 1 else 'have'} taken more than "
            f"{seconds(late.patience)}: the step is held until they have ended"
        )
    restarted = next((pod for pod in restarted_pods(case, case.version) if not has_lasted(case, pod)), None)
    if restarted is not None:
        yield (
            f"A container of {case.name} was restarted{as_kubernetes_says(case)}: the step is held until it has run "
            "twice as long as before the restart"
        )
    ready = available(case)
    if ready < case.replicas and (not ready or case.left > -SETTLE):
        yield f"{case.subject} has {ready} of {count(case.replicas, 'pod')} ready{as_kubernetes_says(case)}"
    yield from too_few_jobs(case)


def too_few_jobs(case: Case) -> Iterator[str]:
    """Say so when too few of its jobs have ended. Where neither version had any, all steps but the last go on."""
    needed, ended = case.abort.min_samples, case.record.ended
    if ended >= needed:
        return
    if has_nothing_to_do(case.version, case.record) and has_nothing_to_do(case.before, case.record_before):
        if case.is_last:
            yield (
                f"{case.subject} has run no job to be judged by: it takes over when "
                f"{count(needed, 'job')} of it {'has' if needed == 1 else 'have'} ended, or when it is promoted by annotation"
            )
        return
    yield (
        f"{count(ended, 'job')} of {case.name} {'has' if ended == 1 else 'have'} ended since it got its share, "
        f"and {needed} are needed to judge it: the step is held"
    )


def has_nothing_to_do(version: Version, record: TrackRecord) -> bool:
    """Whether no job was started since the version got its share, and none runs."""
    return record == TrackRecord(workers_lost=record.workers_lost) and not version.in_progress

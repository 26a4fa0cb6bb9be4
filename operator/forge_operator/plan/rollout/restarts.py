"""How often containers of a version were started again, and whether that is over."""

from forge_jobs.model import Version
from forge_operator.plan.rollout.case import Case, ramping_since, since_its_share, step_length
from forge_operator.state.observed import Pod


def crashes_of(case: Case, version: Version) -> int:
    """Return how often processes of the version died: as Kubernetes saw it, or as the database did, which sees it later."""
    return max(restarts_of(case, version), since_its_share(case.version, version).workers_lost)


def restarts_of(case: Case, version: Version) -> int:
    """Return how often containers of the version were started again, by its pods to which that happened lately."""
    return sum(pod.restarts for pod in restarted_pods(case, version))


def restarted_pods(case: Case, version: Version) -> list[Pod]:
    """Return the version's pods in which a container ended since the new one has any share."""
    since = ramping_since(case)
    pods = case.pool.pods(version.id, alive=False)
    return [pod for pod in pods if pod.restarted_at is not None and pod.restarted_at >= since]


def has_lasted(case: Case, pod: Pod) -> bool:
    """Whether the pod has run since its restart for longer than a step, and for more than twice as long as before it."""
    if pod.restarted_at is None or not pod.ready:
        return False
    return case.pool.now - pod.restarted_at > max(step_length(case), 2 * pod.lasted)

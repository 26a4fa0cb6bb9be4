"""Why a job that is pinned to a version of the program does not run: who could go on with it, and what to do when nobody can."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from forge_jobs.model.job import ENDED, Job
from forge_jobs.model.pin import Pin
from forge_jobs.model.version import VersionState
from forge_jobs.model.worker import WorkerInfo

GOING_ON = frozenset(
    {VersionState.CURRENT, VersionState.RAMPING, VersionState.DRAINING, VersionState.DRAINED}
)
"""The states of a version in which its workers go on with what is pinned to it."""


def may_go_on(job: Job, worker: WorkerInfo) -> bool:
    """Whether the worker is of the version that the job is pinned to, if it is."""
    return job.pin is None or job.pin.fits(worker)


def is_let(job: Job, worker: WorkerInfo) -> bool:
    """Whether the worker's gate lets it claim the job: a version that drains goes on with what is pinned to it."""
    if worker.is_open or job.pin is None or not job.pin.fits(worker):
        return worker.is_open
    return not worker.cordoned and job.pin.state in GOING_ON


def pinned(job: Job, now: datetime, workers: Sequence[WorkerInfo], stale: timedelta) -> Iterator[str]:
    """Which version has to go on with a job that has not ended, and whether it can."""
    pin = job.pin
    if pin is None or job.state in ENDED:
        return
    began = f"Version {pin.name} of the program has begun it, and has to go on with it"
    if any(pin.fits(worker) and worker.was_heard_from(now, stale) for worker in workers):
        yield f"{began}."
    else:
        yield f"{began}; {_where_it_is(pin)}"
        yield f"To let any version go on with it: forge-jobs jobs unpin {job.id}."


def _where_it_is(pin: Pin) -> str:
    if pin.pool is None:
        return f"no worker of it is alive: start one with FORGE_WORKER_VERSION={pin.version}."
    if pin.state is None or pin.state is VersionState.RETIRED:
        return "but that version is gone for good."
    if pin.state is VersionState.FAILED:
        return "but that version failed, and its workers begin nothing any more."
    return "no worker of it is alive: its operator starts one when the job is pending, unless its Deployment is gone."

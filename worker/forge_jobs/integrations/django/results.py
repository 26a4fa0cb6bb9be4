"""What Django is told of a job: a TaskResult."""

import builtins
import json
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone

from forge_jobs.integrations.django.tasks_api import TaskError, TaskResult, TaskResultStatus
from forge_jobs.model.job import Job, State

STATUS = {
    State.IN_PROGRESS: TaskResultStatus.RUNNING,
    State.DONE: TaskResultStatus.SUCCESSFUL,
    State.DEAD: TaskResultStatus.FAILED,
    State.EXPIRED: TaskResultStatus.FAILED,
}
"""The status of a job; in any other state it is READY."""


def result_of(job: Job, task: Any, backend: str) -> Any:
    """Return the result of the job, whose task this is, as it stands."""
    payload = json.loads(job.payload)
    failures = list(job.failures)
    workers = [failure.worker or "" for failure in failures]
    if job.state in (State.IN_PROGRESS, State.DONE) and job.worker:
        workers.append(job.worker)
    started = job.started_at or job.claimed_at
    result = TaskResult(
        task=task,
        id=str(job.id),
        status=STATUS.get(job.state, TaskResultStatus.READY),
        enqueued_at=as_django_has_it(job.created_at),
        started_at=as_django_has_it(started),
        finished_at=as_django_has_it(job.finished_at),
        last_attempted_at=as_django_has_it(started or (failures[-1].at if failures else None)),
        args=payload["args"],
        kwargs=payload["kwargs"],
        backend=backend,
        errors=[error_of(failure.error or "") for failure in failures],
        worker_ids=workers,
    )
    if job.state is State.DONE:
        object.__setattr__(result, "_return_value", None if job.result is None else json.loads(job.result))
    return result


def as_django_has_it(moment: datetime | None) -> datetime | None:
    """Return the moment without a time zone, in that of the project, where Django uses none (USE_TZ)."""
    if moment is None or settings.USE_TZ:
        return moment
    naive: datetime = timezone.make_naive(moment)
    return naive


def error_of(said: str) -> Any:
    """Return the error of an attempt, with all that was said. Of its class only the name is known: any but Python's own is an Exception."""
    name = said.strip().partition("\n")[0].partition(":")[0].strip()
    kind = getattr(builtins, name, None)
    is_known = isinstance(kind, type) and issubclass(kind, BaseException)
    return TaskError(exception_class_path=f"builtins.{name if is_known else 'Exception'}", traceback=said)

"""What Django is told of a job: a TaskResult."""

import asyncio
import builtins
import json
import re
from collections.abc import Mapping
from datetime import datetime
from traceback import format_exception
from typing import Any

from django.utils import timezone

from forge_jobs.integrations.django.fields import as_django_has_it
from forge_jobs.integrations.django.tasks_api import TaskError, TaskResult, TaskResultStatus
from forge_jobs.model.decision import Asleep, Dead, Reschedule, Throttled
from forge_jobs.model.job import Claim, Job, State

STATUS = {
    State.IN_PROGRESS: TaskResultStatus.RUNNING,
    State.DONE: TaskResultStatus.SUCCESSFUL,
    State.DEAD: TaskResultStatus.FAILED,
    State.EXPIRED: TaskResultStatus.FAILED,
}
"""The status of a job; in any other state it is READY."""

NOT_THE_END = (Asleep, Reschedule, Throttled, asyncio.CancelledError)
"""After these a job waits again, or it is not for its handler to say what became of it."""

_NAME = re.compile(r"[^\W\d][\w.<>]*")


def result_of(job: Job, task: Any, backend: str) -> Any:
    """Return the result of the job, whose task this is, as it stands."""
    payload = json.loads(job.payload)
    failures = list(job.failures)
    workers = [failure.worker or "" for failure in failures]
    if job.state in (State.IN_PROGRESS, State.DONE) and job.worker:
        workers.append(job.worker)
    errors = [failure.error or "" for failure in failures]
    if job.state in (State.DEAD, State.EXPIRED) and job.error and job.error not in errors:
        errors.append(job.error)  # of one that ended otherwise than by an attempt
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
        errors=[error_of(error) for error in errors],
        worker_ids=workers,
    )
    if job.state is State.DONE:
        object.__setattr__(result, "_return_value", None if job.result is None else json.loads(job.result))
    return result


def waiting(job_id: int, at: datetime, task: Any, payload: Mapping[str, Any], backend: str) -> Any:
    """Return the result of a job that was enqueued at this moment."""
    return TaskResult(
        task=task,
        id=str(job_id),
        status=TaskResultStatus.READY,
        enqueued_at=as_django_has_it(at),
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=payload["args"],
        kwargs=payload["kwargs"],
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def is_final(claim: Claim, error: BaseException) -> bool:
    """Whether an attempt whose handler raised this was the last one, as far as the handler can know."""
    return isinstance(error, Dead) or (claim.is_last_attempt and not isinstance(error, NOT_THE_END))


def running(result: Any, worker: str) -> Any:
    """Return the `result` of a waiting task as it is now that this worker runs it."""
    result.worker_ids.append(worker)
    for name in ("started_at", "last_attempted_at"):
        object.__setattr__(result, name, timezone.now())
    object.__setattr__(result, "finished_at", None)
    object.__setattr__(result, "status", TaskResultStatus.RUNNING)
    return result


def succeeded(result: Any, value: Any) -> Any:
    """Return the `result` of a running task as it is now that the task has returned this value."""
    object.__setattr__(result, "_return_value", value)
    return _ended(result, TaskResultStatus.SUCCESSFUL)


def failed(result: Any, error: BaseException) -> Any:
    """Return the `result` of a running task as it is now that the task has raised this, if for the last time."""
    kind = type(error)
    said = TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
        traceback="".join(format_exception(error)),
    )
    result.errors.append(said)
    return _ended(result, TaskResultStatus.FAILED)


def _ended(result: Any, status: Any) -> Any:
    object.__setattr__(result, "finished_at", timezone.now())
    object.__setattr__(result, "status", status)
    return result


def error_of(said: str) -> Any:
    """Return the error of an attempt, with all that was said, in the order of Python's own tracebacks.

    What was not raised, such as the loss of a worker, is an Exception, and so is a class of the program's main file.
    """
    first, _, more = said.strip("\n").partition("\n")
    name = first.partition(":")[0].strip()
    kind = getattr(builtins, name, None)
    if not (_NAME.fullmatch(name) and "." in name):
        is_known = isinstance(kind, type) and issubclass(kind, BaseException)
        name = f"builtins.{name if is_known else 'Exception'}"
    if more.startswith("  File "):
        said = f"Traceback (most recent call last):\n{more}\n{first}\n"
    return TaskError(exception_class_path=name, traceback=said)

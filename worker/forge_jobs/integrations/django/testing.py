"""For tests of Django's: what was enqueued, and tasks that run when told, in a TestCase as in a TransactionTestCase.

class OrderTests(TestCase):
    def test_an_order_is_confirmed(self):
        self.client.post("/orders/", {"book": 7})
        assert_enqueued(confirm, [1], queue="mail")
        [result] = run_tasks()
        self.assertEqual(result.return_value, "confirmed")
"""

import asyncio
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from django.db import connections, transaction
from django.test import TestCase

from forge_jobs.errors import InvalidInput
from forge_jobs.integrations.django.backend import ForgeBackend, ended_in_tests
from forge_jobs.integrations.django.models import Job
from forge_jobs.integrations.django.program import chosen_backend
from forge_jobs.integrations.django.results import failed, result_of, running, succeeded
from forge_jobs.integrations.django.tasks_api import (
    TaskContext,
    TaskResultStatus,
    normalize_json,
    signals,
)
from forge_jobs.model import job as values
from forge_jobs.model.decision import Dead
from forge_jobs.model.job import State
from forge_jobs.worker.worker import Worker

FIELDS = {"key", "priority", "queue", "state", "tags"}
"""What else may be asked of a job; its priority is that of Django."""

MOST = 1000
"""So many tasks run at most, of those that enqueue each other."""


def assert_enqueued(
    task: Any,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    count: int | None = None,
    **fields: Any,
) -> None:
    """The task was enqueued, `count` times where that is said, in this transaction or before; else AssertionError says what was.

    `args` and `kwargs` are all that it was given, None: whatever that is. Fields are `queue`, `state`, `priority`, `key`, `tags`.
    """
    jobs = list(_jobs(task))
    matching = [job for job in jobs if _matches(job, args, kwargs, fields)]
    if len(matching) == count or (count is None and matching):
        return
    wanted = "" if count is None else f" {count} times"
    raise AssertionError(
        f"{_named(task, args, kwargs, fields)} was to be enqueued{wanted}, and was {len(matching)} times; {_shown(jobs)}"
    )


def refute_enqueued(
    task: Any,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **fields: Any,
) -> None:
    """The task was not enqueued, as `assert_enqueued` says it; else AssertionError says how it was."""
    matching = [job for job in _jobs(task) if _matches(job, args, kwargs, fields)]
    if matching:
        raise AssertionError(
            f"{_named(task, args, kwargs, fields)} was not to be enqueued, and was; {_shown(matching)}"
        )


def run_tasks(*, backend: str = "default", raise_on_failure: bool = True, retries: bool = False) -> list[Any]:
    """Run the tasks that are due, and what they enqueue for now; return their results, in the order in which they began.

    In a TestCase, whose transaction no worker can look into, they are called here, one after another: what one writes and
    then fails is rolled back, what it gives to on_commit is called after it, and its job stays as it is, though its result
    does not. Elsewhere a worker runs them. A task that fails is called once, and with `retries` again at once, as often as it has attempts.
    What the first one raises in the end is raised, unless `raise_on_failure` is False. A job that is no task is left, with a warning.
    """
    ours = chosen_backend(backend)
    if connections[ours.database].in_atomic_block:
        return list(_called_here(ours, raise_on_failure, retries))
    return _run_by_a_worker(ours, raise_on_failure, retries)


def delete_tasks(*, backend: str = "default") -> None:
    """No job is left: for `setUp` of a TransactionTestCase, which empties Django's tables only."""
    jobs = chosen_backend(backend).opened().jobs
    for state in State:
        if state is not State.IN_PROGRESS:
            jobs.delete_all(state=state)


def _called_here(ours: ForgeBackend, raise_on_failure: bool, retries: bool) -> Iterator[Any]:
    done: set[int] = set()
    for _ in range(MOST):
        waiting = Job.objects.of(ours).filter(state=State.PENDING.value).exclude(pk__in=done)
        job_id = waiting.order_by("priority", "pk").values_list("pk", flat=True).first()
        if job_id is None:
            return
        done.add(job_id)
        job = ours.job(job_id)
        if not _is_task(ours, job):
            said = f"Job {job.id} is of the kind {job.kind!r}, which is no task, and was left."
            warnings.warn(said, stacklevel=3)
            continue
        if ours.get_result(str(job_id)).is_finished:  # by an earlier call, though its job waits
            continue
        result, error = _call(ours, job, (job.max_attempts or MOST) if retries else 1)
        ended_in_tests[result.id] = result
        if error is not None and raise_on_failure:
            raise error
        yield result
    raise InvalidInput(f"{MOST} tasks have run, allowed are as many: do they enqueue each other without end?")


def _is_task(ours: ForgeBackend, job: values.Job) -> bool:
    try:
        ours.task(job.kind)
    except (ImportError, KeyError):
        return False
    return True


def _call(ours: ForgeBackend, job: values.Job, attempts: int) -> tuple[Any, Exception | None]:
    """Call the task until it returns, at most so often; return its result, and what it has raised the last time."""
    task = ours.task(job.kind)
    result = result_of(job, task, ours.alias)
    error: Exception | None = None
    for _ in range(attempts):
        running(result, "test")
        signals.task_started.send_robust(type(ours), task_result=result)
        error = _attempt(ours, task, result)
        if error is None or isinstance(error, Dead):
            break
    signals.task_finished.send_robust(type(ours), task_result=result)
    return result, error


def _attempt(ours: ForgeBackend, task: Any, result: Any) -> Exception | None:
    given = [TaskContext(task_result=result), *result.args] if task.takes_context else result.args
    with ExitStack() as stack:
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block:
                alias = connection.alias
                stack.enter_context(TestCase.captureOnCommitCallbacks(using=alias, execute=True))
        try:
            with transaction.atomic(using=ours.database):
                value = normalize_json(task.call(*given, **result.kwargs))
            succeeded(result, value)
        except Exception as raised:
            failed(result, raised)
            return raised
    return None


def _run_by_a_worker(ours: ForgeBackend, raise_on_failure: bool, retries: bool) -> list[Any]:
    begun: dict[str, None] = {}  # in this order

    def hear(task_result: Any, **_: Any) -> None:
        begun[task_result.id] = None

    signals.task_started.connect(hear, weak=False)
    try:
        asyncio.run(_work(ours, retries))
    finally:
        signals.task_started.disconnect(hear)
    results = [ours.get_result(job_id) for job_id in begun]
    broken = next((result for result in results if result.errors and not _has_succeeded(result)), None)
    if raise_on_failure and broken is not None:
        raise AssertionError(f"Task {broken.task.module_path} has failed:\n{broken.errors[-1].traceback}")
    return results


def _has_succeeded(result: Any) -> bool:
    return bool(result.status == TaskResultStatus.SUCCESSFUL)


async def _work(ours: ForgeBackend, retries: bool) -> None:
    async with ours.forge as forge:
        queues = sorted(ours.queues) or [queue.name for queue in await forge.queues.list()]
        for _ in range(MOST):
            await Worker(forge, queues=queues, concurrency=1).run(until_empty=True)
            late = await forge.jobs.list(state=State.RETRYING, limit=MOST) if retries else []
            for job in late:
                await forge.jobs.run_now(job.id)
            if not late:
                return


def _jobs(task: Any) -> Iterator[values.Job]:
    """Yield the jobs of the task, as Django's connection sees them."""
    backend = task.get_backend()
    if not isinstance(backend, ForgeBackend):
        raise InvalidInput(f"The backend of the task is {type(backend).__name__}, allowed is ForgeBackend.")
    jobs = Job.objects.of(backend).filter(kind=task.module_path).order_by("pk")
    for job_id in list(jobs.values_list("pk", flat=True)):
        yield backend.job(job_id)


def _matches(
    job: values.Job, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> bool:
    for field in fields:
        if field not in FIELDS:
            raise InvalidInput(
                f"A task has no field {field!r}, allowed are {', '.join(sorted(FIELDS))}; "
                "its arguments are given as a list and a mapping, before them."
            )
    payload = json.loads(job.payload)
    facts = {
        **{name: getattr(job, name) for name in FIELDS},
        "priority": -job.priority,
        "tags": list(job.tags),
    }
    return (
        (args is None or payload["args"] == normalize_json(list(args)))
        and (kwargs is None or payload["kwargs"] == normalize_json(dict(kwargs)))
        and all(facts[name] == value for name, value in fields.items())
    )


def _named(
    task: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> str:
    said = [repr(value) for value in args or ()] + [
        f"{name}={value!r}" for name, value in {**(kwargs or {}), **fields}.items()
    ]
    return f"{task.module_path}({', '.join(said)})"


def _shown(jobs: Sequence[values.Job]) -> str:
    if not jobs:
        return "there is none of this task."
    lines = [
        f"\n  {job.id}: {'(redacted)' if job.redacted else job.payload.decode()}, queue {job.queue}, {job.state.value}"
        for job in jobs[:10]
    ]
    return f"of this task there are:{''.join(lines)}"

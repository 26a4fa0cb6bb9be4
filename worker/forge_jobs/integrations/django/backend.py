"""The backend of Django's TASKS that keeps tasks as jobs, enqueued on Django's own connection, in its transaction."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db import close_old_connections, connections

from forge_jobs.errors import InvalidInput, JobNotFound
from forge_jobs.forge import Forge
from forge_jobs.handlers.context import Context
from forge_jobs.integrations.django.database_url import database_url
from forge_jobs.integrations.django.results import result_of
from forge_jobs.integrations.django.tasks_api import (
    BaseTaskBackend,
    TaskContext,
    TaskResultDoesNotExist,
    normalize_json,
    signals,
    tasks,
)

OPTIONS = {"DATABASE", "MAX_ATTEMPTS", "SCHEMA", "TIMEOUT"}


class ForgeBackend(BaseTaskBackend):  # type: ignore[misc]  # which has no types here
    """`TASKS = {"default": {"BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend"}}`.

    OPTIONS: DATABASE, the alias of the database that has the jobs (default: "default"), SCHEMA, MAX_ATTEMPTS, TIMEOUT (seconds).
    """

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := sorted(self.options.keys() - OPTIONS):
            raise InvalidInput(
                f"OPTIONS of TASKS[{alias!r}] has {unknown[0]!r}, allowed are {', '.join(sorted(OPTIONS))}."
            )
        self.database: str = self.options.get("DATABASE", "default")
        self._tasks: dict[str, Any] = {}  # by their paths, which are the kinds of their jobs
        self._forges: dict[str, Forge] = {}  # by URL: while tests run, Django's database is another one

    @property
    def forge(self) -> Forge:
        """The forge on the database that Django has under its alias now, with a handler for each task. Raises InvalidInput."""
        url = database_url(self.database, connections[self.database].settings_dict)
        forge = self._forges.get(url)
        if forge is None:
            forge = self._forges[url] = Forge(url, schema=self.options.get("SCHEMA"))
        for path, task in self._tasks.items():
            if path not in forge.handlers:
                self._declare(forge, path, task)
        return forge

    def migrate(self) -> None:
        """The tables are there, and the queues of the tasks."""
        sync = self.forge.sync
        sync.open(migrate=True)
        sync.queues.ensure(*sorted(self.queues))
        sync.close()

    def validate_task(self, task: Any) -> None:
        """The task can be run here, and is known. Raises Django's error for one that cannot."""
        super().validate_task(task)
        self._tasks.setdefault(task.module_path, task)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A job waits, in the transaction of Django's connection if there is one; return its result so far."""
        self.validate_task(task)
        payload = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs))}
        options: dict[str, Any] = {"queue": task.queue_name, "priority": -task.priority}
        if task.run_after is not None:
            options["run_at"] = task.run_after
        connection = connections[self.database]
        made = self.forge.enqueue_sync(task.module_path, payload, connection=connection, **options)
        result = _waiting(made.id, task, payload, self.alias)
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    def get_result(self, result_id: str) -> Any:
        """Return the result of a committed task as it stands. Raises TaskResultDoesNotExist."""
        try:
            job = self.forge.sync.jobs.get(int(result_id))
            task = self._tasks[job.kind]
        except (JobNotFound, KeyError, ValueError) as error:
            raise TaskResultDoesNotExist(result_id) from error
        return result_of(job, task, self.alias)

    def _declare(self, forge: Forge, path: str, task: Any) -> None:
        """Jobs of the task are run by calling it, in a thread whose connections are Django's, and in order."""

        def run(ctx: Context, args: list[Any], kwargs: dict[str, Any]) -> Any:
            close_old_connections()
            try:
                return self._run(ctx, task, args, kwargs)
            finally:
                close_old_connections()

        options: dict[str, Any] = {"queue": task.queue_name, "timeout": self.options.get("TIMEOUT")}
        if "MAX_ATTEMPTS" in self.options:
            options["max_attempts"] = self.options["MAX_ATTEMPTS"]
        forge.handler(kind=path, title=task.name, **options)(run)

    def _run(self, ctx: Context, task: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        result = result_of(self.forge.sync.jobs.get(ctx.job_id), task, self.alias)
        signals.task_started.send(type(self), task_result=result)
        given = [TaskContext(task_result=result), *args] if task.takes_context else args
        try:
            value = normalize_json(task.call(*given, **kwargs))
        except BaseException:
            signals.task_finished.send(type(self), task_result=result)
            raise
        object.__setattr__(result, "_return_value", value)
        signals.task_finished.send(type(self), task_result=result)
        return value


def _waiting(job_id: int, task: Any, payload: Mapping[str, Any], backend: str) -> Any:
    from django.utils import timezone

    from forge_jobs.integrations.django.tasks_api import TaskResult, TaskResultStatus

    return TaskResult(
        task=task,
        id=str(job_id),
        status=TaskResultStatus.READY,
        enqueued_at=timezone.now(),
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=payload["args"],
        kwargs=payload["kwargs"],
        backend=backend,
        errors=[],
        worker_ids=[],
    )


def backends() -> Iterator[ForgeBackend]:
    """Yield the backends of TASKS that are ours."""
    for alias in tasks.task_backends:
        backend = tasks.task_backends[alias]
        if isinstance(backend, ForgeBackend):
            yield backend

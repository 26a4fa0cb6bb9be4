"""The backend of Django's TASKS that keeps tasks as jobs, enqueued on Django's own connection, in its transaction."""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import connections, transaction
from django.utils import timezone
from django.utils.asyncio import async_unsafe
from django.utils.module_loading import import_string

from forge_jobs.errors import InvalidInput, JobNotFound, StorageUnavailable, UnknownQueue
from forge_jobs.forge import Forge
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.integrations.django.connection_care import of_one_task
from forge_jobs.integrations.django.database_url import database_url
from forge_jobs.integrations.django.results import failed, is_final, result_of, succeeded, waiting
from forge_jobs.integrations.django.tasks_api import (
    BaseTaskBackend,
    TaskContext,
    TaskResultDoesNotExist,
    normalize_json,
    signals,
    tasks,
)
from forge_jobs.model.job import Job
from forge_jobs.rules.checks import MAX_ID

if TYPE_CHECKING:
    from forge_jobs.sync.sync_forge import SyncForge

OPTIONS = {"ATOMIC", "DATABASE", "MAX_ATTEMPTS", "SCHEMA", "TIMEOUT"}

# Django makes a backend anew for each thread. What they know is the process's: tasks by the alias of their backend
# and their paths, which are the kinds of their jobs, and forges by what TASKS says and their URL, which tests change.
_tasks: dict[str, dict[str, Any]] = {}
_forges: dict[tuple[str, str], Forge] = {}
_declaring = threading.RLock()

ended_in_tests: dict[str, Any] = {}
"""The results of jobs that were called by `testing.run_tasks`, in a transaction which no worker can look into. Empty elsewhere."""


class ForgeBackend(BaseTaskBackend):  # type: ignore[misc]  # which has no types here
    """`TASKS = {"default": {"BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend"}}`.

    OPTIONS: DATABASE, the alias of the database that has the jobs (default: "default"), SCHEMA, MAX_ATTEMPTS, TIMEOUT (seconds),
    ATOMIC (a task and the end of its job are one transaction of that database).
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
        self._tasks = _tasks.setdefault(alias, {})
        self._said = f"{alias} {params!r}"

    @property
    def forge(self) -> Forge:
        """The forge on the database that Django has under its alias now, with a handler for each task. Raises InvalidInput."""
        url = database_url(self.database, connections[self.database].settings_dict)
        with _declaring:
            forge = _forges.get((self._said, url))
            if forge is None:
                forge = _forges[self._said, url] = Forge(url, schema=self.options.get("SCHEMA"))
            for path, task in list(self._tasks.items()):
                if path not in forge.handlers:
                    self._declare(forge, path, task)
        return forge

    def table(self, name: str) -> str:
        """Return the name of a table of ours, as Django quotes none that is quoted already."""
        if connections[self.database].vendor == "sqlite":
            return name
        return f'"{self.options.get("SCHEMA") or self.forge.settings.schema}"."{name}"'

    def opened(self) -> "SyncForge":
        """Return what changes and shows committed jobs, which migrates nothing. Raises StorageUnavailable."""
        sync = self.forge.sync
        sync.open(migrate=False, declare=False)
        return sync

    def migrate(self) -> None:
        """The tables are there, and the queues of the tasks."""
        sync = self.forge.sync
        sync.open(migrate=True)
        sync.queues.ensure(*sorted({*self.queues, *(task.queue_name for task in self._tasks.values())}))
        sync.close()

    def validate_task(self, task: Any) -> None:
        """The task can be run here, and is known. Raises Django's error for one that cannot."""
        super().validate_task(task)
        self._tasks.setdefault(task.module_path, task)

    @async_unsafe(
        "A task is enqueued in an event loop, where it has to be awaited: await task.aenqueue(...)."
    )
    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A job waits, in the transaction of Django's connection if there is one; return its result so far."""
        self.validate_task(task)
        payload = {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs))}
        options: dict[str, Any] = {"queue": task.queue_name, "priority": -task.priority}
        if task.run_after is not None:
            is_naive = timezone.is_naive(task.run_after)  # which Django allows without USE_TZ
            options["run_at"] = timezone.make_aware(task.run_after) if is_naive else task.run_after
        connection = connections[self.database]
        send = partial(self.forge.enqueue_sync, task.module_path, payload, connection=connection, **options)
        try:
            made = send()
        except UnknownQueue as error:
            self._make_queue(task.queue_name, error)
            made = send()
        at = at_once(self.forge.storage.jobs.enqueued_at(made.id, connection=connection))
        result = waiting(made.id, at, task, payload, self.alias)
        signals.task_enqueued.send(type(self), task_result=result)
        return result

    @async_unsafe("A result is read in an event loop, where it has to be awaited: aget_result or arefresh.")
    def get_result(self, result_id: str) -> Any:
        """Return the result of a task as it stands, as Django's connection sees it. Raises TaskResultDoesNotExist."""
        if not (result_id.isascii() and result_id.isdecimal() and 0 < int(result_id) <= MAX_ID):
            raise TaskResultDoesNotExist(result_id)
        try:
            job = self.job(int(result_id))
            task = self.task(job.kind)
        except (ImportError, JobNotFound, KeyError) as error:
            raise TaskResultDoesNotExist(result_id) from error
        result = result_of(job, task, self.alias)
        told = ended_in_tests.get(result_id)
        return told if told is not None and told.enqueued_at == result.enqueued_at else result

    def job(self, job_id: int) -> Job:
        """Return the job, as Django's connection sees it. Raises JobNotFound."""
        return at_once(self.forge.jobs.get(job_id, connection=connections[self.database]))

    def _make_queue(self, name: str, error: UnknownQueue) -> None:
        """The queue, which Django allows, is there. Raises `error` when that has to wait for the caller's own transaction."""
        try:
            self.forge.sync.queues.ensure(name)
        except StorageUnavailable:
            raise error from None

    def task(self, path: str) -> Any:
        """Return the task with this path, whose module this process may not have imported yet. Raises KeyError, ImportError."""
        task = self._tasks.get(path) or import_string(path)
        if getattr(task, "module_path", None) != path:
            raise KeyError(path)
        return task

    def _declare(self, forge: Forge, path: str, task: Any) -> None:
        """Jobs of the task are run by calling it, in a thread whose connections are Django's, and in order."""

        def run(ctx: Context, args: list[Any], kwargs: dict[str, Any]) -> Any:
            with of_one_task():
                return self._run(ctx, task, args, kwargs)

        options: dict[str, Any] = {"queue": task.queue_name, "timeout": self.options.get("TIMEOUT")}
        if "MAX_ATTEMPTS" in self.options:
            options["max_attempts"] = self.options["MAX_ATTEMPTS"]
        forge.handler(kind=path, title=task.name, **options)(run)

    def _run(self, ctx: Context, task: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Return what the task returns. Who hears its signals changes nothing: what they raise is logged by Django."""
        result = result_of(self.job(ctx.job_id), task, self.alias)
        signals.task_started.send_robust(type(self), task_result=result)
        given = [TaskContext(task_result=result), *args] if task.takes_context else args
        try:
            if self.options.get("ATOMIC"):
                with transaction.atomic(using=self.database):
                    value = normalize_json(task.call(*given, **kwargs))
                    ctx.complete(connections[self.database], result=value)
            else:
                value = normalize_json(task.call(*given, **kwargs))
        except BaseException as error:
            if is_final(ctx.claim, error):
                signals.task_finished.send_robust(type(self), task_result=failed(result, error))
            raise
        signals.task_finished.send_robust(type(self), task_result=succeeded(result, value))
        return None if self.options.get("ATOMIC") else value  # which the transaction has kept


def backends() -> Iterator[ForgeBackend]:
    """Yield the backends of TASKS that are ours."""
    for alias in tasks.task_backends:
        backend = tasks.task_backends[alias]
        if isinstance(backend, ForgeBackend):
            yield backend


def _declare_anew() -> None:
    """In a forked child: no thread is declaring tasks."""
    global _declaring
    _declaring = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_declare_anew)

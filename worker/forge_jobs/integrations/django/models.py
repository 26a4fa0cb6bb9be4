"""Jobs and queues as Django's models, which read: what changes them is `forge.sync`, the admin and the command line.

Arguments and results are left out, since a model would show what is redacted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable

from forge_jobs.errors import InvalidInput
from forge_jobs.integrations.django.backend import ForgeBackend, backends
from forge_jobs.integrations.django.fields import Moment, Tags
from forge_jobs.integrations.django.tasks_api import tasks
from forge_jobs.model import job as values
from forge_jobs.model.queue import QueueConfig

_shown: ContextVar[str | None] = ContextVar("forge_jobs_shown", default=None)


@contextmanager
def showing(alias: str | None) -> Iterator[None]:
    """Within, models and the admin show the database of the backend with this alias; None: that of the first one."""
    before = _shown.set(alias)
    try:
        yield
    finally:
        _shown.reset(before)


def shown_backend() -> ForgeBackend:
    """Return the backend of TASKS whose database models and the admin show: of ours the first one, unless `showing` says which.

    Raises ImproperlyConfigured when none is ours, and InvalidInput for one that is not.
    """
    ours = {backend.alias: backend for backend in backends()}
    if not ours:
        raise ImproperlyConfigured(
            f"TASKS has {', '.join(sorted(tasks.task_backends.settings))}, of which none is a ForgeBackend."
        )
    wanted = _shown.get()
    if wanted is None:
        return next(iter(ours.values()))
    if wanted not in ours:
        raise InvalidInput(
            f"There is no ForgeBackend {wanted!r} in TASKS, allowed are {', '.join(sorted(ours))}."
        )
    return ours[wanted]


def databases() -> dict[str, list[str]]:
    """Return the backends of TASKS that are ours by the database that they share: the first of each, and all of them."""
    shared: dict[Any, list[str]] = {}
    for backend in backends():
        shared.setdefault((backend.database, backend.options.get("SCHEMA")), []).append(backend.alias)
    return {aliases[0]: aliases for aliases in shared.values()}


class TableOfOurs(BaseTable):  # type: ignore[misc]  # which has no types here
    """The table of a model in a query: each database has it in a schema of its own, or in none."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Return it as it is written in the database that is asked."""
        sql, parameters = super().as_sql(compiler, connection)
        plain = connection.ops.quote_name(self.table_name)
        backend = compiler.query.backend_in(connection.alias)
        there = plain if backend is None else connection.ops.quote_name(backend.table(self.table_name))
        return there + sql.removeprefix(plain), parameters


class Reading(Query):  # type: ignore[misc]  # which has no types here
    """A query of the tables of one backend, whichever one's are read before it is run."""

    base_table_class = TableOfOurs
    made_for: str | None = None  # the alias of the backend

    def backend_in(self, database: str) -> ForgeBackend | None:
        """Return the backend whose tables are meant in a database of Django's: the one that the query is for, else the first one there."""
        ours = list(backends())
        wanted = next((backend for backend in ours if backend.alias == self.made_for), None)
        if wanted is not None and wanted.database == database:
            return wanted
        return next((backend for backend in ours if backend.database == database), wanted)


class Rows(models.QuerySet):  # type: ignore[misc]  # which has no types here
    """Rows that are read: a queue that Django deleted would leave its jobs behind, and no worker would hear of what it changed."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        those = str(self.model._meta.verbose_name_plural).capitalize()
        raise NotImplementedError(f"{those} are not written by Django, allowed is to read them.")

    bulk_create = bulk_update = delete = update = _refuse


class Readers(models.Manager):  # type: ignore[misc]  # which has no types here
    """Reads from the database that has the jobs, whichever alias that has."""

    def get_queryset(self) -> Any:
        """Return all rows; of the database of a row where that is read once more."""
        row = self._hints.get("instance")
        database = self._db or (None if row is None else row._state.db)
        rows = self.of(shown_backend())
        return rows if database is None else rows.using(database)

    def of(self, backend: ForgeBackend) -> Any:
        """Return all rows of the database of this backend."""
        query = Reading(self.model)
        query.made_for = backend.alias
        return Rows(self.model, query, using=backend.database, hints=self._hints)


class ReadOnly(models.Model):  # type: ignore[misc]  # which has no types here
    """A row that Django only reads."""

    objects = Readers()

    class Meta:
        """It has no table of its own."""

        abstract = True
        base_manager_name = "objects"  # which knows the tables, for what is read of a row later on

    def save(self, *_: Any, **__: Any) -> None:
        """Refused."""
        raise NotImplementedError(f"A {self._meta.verbose_name} is not saved, allowed is to read it.")

    def delete(self, *_: Any, **__: Any) -> Any:
        """Refused."""
        raise NotImplementedError(f"A {self._meta.verbose_name} is not deleted, allowed is to read it.")


class Job(ReadOnly):
    """A row of the view `jobs`."""

    id = models.BigAutoField(primary_key=True)
    queue = models.CharField(max_length=values.MAX_NAME)
    kind = models.CharField(max_length=values.MAX_NAME)
    state = models.CharField(max_length=16)
    priority = models.SmallIntegerField()
    attempt = models.IntegerField(null=True)  # of a pending job that has not run, None
    max_attempts = models.IntegerField()
    key = models.CharField(max_length=values.MAX_KEY, null=True)
    tenant = models.CharField(max_length=values.MAX_NAME, null=True)
    tags = Tags()
    progress = models.FloatField(null=True)
    created_at = Moment()
    run_at = Moment(null=True)
    claimed_at = Moment(null=True)
    started_at = Moment(null=True)
    finished_at = Moment(null=True)
    error = models.TextField(null=True)

    class Meta:
        """Others make what it reads."""

        managed = False
        db_table = "jobs"
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return f"job {self.pk}" + (f", {self.kind}" if self.kind else "")

    @classmethod
    def of(cls, job: values.Job) -> "Job":
        """Return the row of a job that was read otherwise."""
        names = [field.name for field in cls._meta.fields]
        facts = {name: getattr(job, name) for name in names} | {
            "state": job.state.value,
            "progress": job.progress.share if job.progress else None,
        }
        return cls(**facts)


class Queue(ReadOnly):
    """A row of the table `queue`."""

    name = models.CharField(max_length=values.MAX_NAME, primary_key=True)
    paused = models.BooleanField()
    paused_until = Moment(null=True)
    pause_reason = models.TextField(null=True)
    concurrency = models.IntegerField(null=True)

    class Meta:
        """Others make what it reads."""

        managed = False
        db_table = "queue"
        default_permissions = ("view", "change")

    def __str__(self) -> str:
        return str(self.name)

    @classmethod
    def of(cls, queue: QueueConfig) -> "Queue":
        """Return the row of a queue that was read otherwise."""
        return cls(**{field.name: getattr(queue, field.name) for field in cls._meta.fields})

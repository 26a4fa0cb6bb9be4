"""A Django project as a process of its own: `python django_program.py SCENE`, on the databases that JOBS_DATABASES says."""

# mypy: disable-error-code="untyped-decorator"

import json
import os
import sys
import threading
from datetime import timedelta
from typing import Any

import django
from django.conf import settings

settings.configure(
    DATABASES=json.loads(os.environ["JOBS_DATABASES"]),
    INSTALLED_APPS=["forge_jobs.integrations.django"],
    TASKS={
        "default": {
            "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
            "QUEUES": ["default", "mail"],
            "OPTIONS": {"DATABASE": os.environ.get("JOBS_ALIAS", "default"), "MAX_ATTEMPTS": 1},
        }
    },
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from forge_jobs.integrations.django.backend import ForgeBackend, backends  # noqa: E402
from forge_jobs.integrations.django.tasks_api import TaskResultDoesNotExist, signals, tasks  # noqa: E402

ALIAS = os.environ.get("JOBS_ALIAS", "default")
ran: list[Any] = []
[backend] = backends()


@tasks.task
def note(what: Any, **more: Any) -> Any:
    ran.append(what)
    return {"what": what, **more}


@tasks.task(queue_name="mail", takes_context=True)
def attempt(context: Any) -> int:
    return context.attempt  # type: ignore[no-any-return]


@tasks.task
async def later(number: int) -> int:
    return number + 1


@tasks.task
def fail(why: str) -> None:
    raise LookupError(why)


@tasks.task
def query() -> int:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute("SELECT 42")
        return cursor.fetchone()[0]  # type: ignore[no-any-return]


def work() -> None:
    call_command("forge_worker", until_empty=True, concurrency=1)


def transactions() -> Any:
    with transaction.atomic(using=ALIAS):
        kept = note.enqueue("kept")
    try:
        with transaction.atomic(using=ALIAS):
            undone = note.enqueue("undone")
            raise LookupError
    except LookupError:
        pass
    try:
        note.get_result(undone.id)
        is_there = True
    except TaskResultDoesNotExist:
        is_there = False
    alone = note.enqueue("alone")
    work()
    kept.refresh()
    return [ran, is_there, kept.status, kept.return_value, note.get_result(alone.id).is_finished]


def order() -> Any:
    note.using(priority=-5).enqueue("last")
    note.enqueue("second")
    note.using(priority=100).enqueue("first")
    waiting = note.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("in an hour")
    work()
    waiting.refresh()
    return [ran, waiting.status]


def outcomes() -> Any:
    heard: list[str] = []
    for name in ("task_enqueued", "task_started", "task_finished"):
        getattr(signals, name).connect(
            lambda name=name, **_: heard.append(name), sender=ForgeBackend, weak=False
        )
    results = [
        attempt.enqueue(),
        later.enqueue(1),
        fail.enqueue("no such order"),
        query.enqueue(),
        note.enqueue(what={"a": (1, 2)}, b=None),
    ]
    work()
    for result in results:
        result.refresh()
    failed = results[2]
    return [
        [result.return_value for result in results if result is not failed],
        failed.status,
        failed.errors[0].exception_class_path,
        "no such order" in failed.errors[0].traceback,
        [len(failed.worker_ids), failed.attempts],
        [heard.count(name) for name in ("task_enqueued", "task_started", "task_finished")],
        threading.active_count() < 30,
    ]


call_command("migrate", database=ALIAS, verbosity=0)
print(json.dumps({"transactions": transactions, "order": order, "outcomes": outcomes}[sys.argv[1]]()))

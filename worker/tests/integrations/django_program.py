"""A Django project as a process of its own, on the databases that JOBS_DATABASES says: it runs the scene of each name that it reads."""

# mypy: disable-error-code="untyped-decorator"

import asyncio
import json
import os
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import django
from django.conf import settings

settings.configure(
    DATABASES=json.loads(os.environ["JOBS_DATABASES"]),
    SECRET_KEY="of tests",
    ROOT_URLCONF="tests.integrations.django_admin_scenes",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "forge_jobs.integrations.django",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    STATIC_URL="/static/",
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    TASKS={
        "default": {
            "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
            "QUEUES": ["default", "mail"],
            "OPTIONS": {"DATABASE": "jobs", "MAX_ATTEMPTS": 1},
        },
        "any": {
            "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
            "QUEUES": [],
            "OPTIONS": {"DATABASE": "jobs"},
        },
        "atomic": {
            "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
            "OPTIONS": {"DATABASE": "jobs", "ATOMIC": True, "MAX_ATTEMPTS": 1},
        },
        "beside": {
            "BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend",
            "OPTIONS": {"DATABASE": "default", "MAX_ATTEMPTS": 1},
        },
    },
    USE_TZ="JOBS_WITHOUT_TZ" not in os.environ,
    TIME_ZONE="America/New_York",
)
django.setup()

from django.core.exceptions import SynchronousOnlyOperation  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.utils import timezone  # noqa: E402

from forge_jobs.errors import UnknownQueue  # noqa: E402
from forge_jobs.integrations.django.backend import ForgeBackend, backends  # noqa: E402
from forge_jobs.integrations.django.tasks_api import TaskResultDoesNotExist, signals, tasks  # noqa: E402
from tests.integrations import django_admin_scenes, django_more_scenes  # noqa: E402

ALIAS = "jobs"
ran: list[Any] = []
backend, *_ = backends()


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


class OutOfStock(Exception):
    pass


@tasks.task
def sell() -> None:
    raise OutOfStock("no bike is left")


def work(**options: Any) -> None:
    call_command("forge_worker", until_empty=True, concurrency=1, **options)


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


def threads() -> Any:
    barrier = threading.Barrier(8)
    first = note.enqueue("first")

    def enqueued(number: int) -> Any:
        barrier.wait(30)
        result = note.enqueue(number)
        is_same = tasks.task_backends["default"].forge is backend.forge
        return [note.get_result(result.id).args, note.get_result(first.id).args, is_same]

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(enqueued, range(8)))


def results_by_path() -> Any:
    result = note.enqueue("known by its path")
    del backend._tasks[note.module_path]  # as in a process that has not imported its module
    args = note.get_result(result.id).args
    unknown = []
    for name in ("-1", "0", "9" * 30, "x"):
        try:
            note.get_result(name)
        except TaskResultDoesNotExist:
            unknown.append(name)
    return [args, unknown]


def a_look_in_a_transaction() -> Any:
    before = note.enqueue("before")
    with transaction.atomic(using=ALIAS):
        inside = note.enqueue("inside")
        is_same = note.get_result(inside.id) == inside
        return [note.get_result(before.id).status, inside.status, is_same]


def what_listeners_are_told() -> Any:
    heard: list[Any] = []

    def hear(task_result: Any, **_: Any) -> None:
        finished = task_result.finished_at is not None
        heard.append([task_result.status, finished, [e.exception_class_path for e in task_result.errors]])
        raise LookupError("a receiver fails")

    signals.task_started.connect(hear, weak=False)
    signals.task_finished.connect(hear, weak=False)
    results = [note.enqueue(1), sell.enqueue()]
    work()
    for result in results:
        result.refresh()
    [error] = results[1].errors
    lines = error.traceback.splitlines()
    return [heard, [result.status for result in results], error.exception_class_path, lines[0], lines[-1]]


def in_an_event_loop() -> Any:
    async def main() -> Any:
        said = []
        for call in (lambda: note.enqueue("now"), lambda: note.get_result("1")):
            try:
                call()
            except SynchronousOnlyOperation as error:
                said.append(str(error))
        result = await note.aenqueue("later")
        return [said, (await note.aget_result(result.id)).status]

    return asyncio.run(main())


def any_queue() -> Any:
    result = note.using(backend="any", queue_name="reports").enqueue("where no queue was")
    inside = "READY"
    with transaction.atomic(using=ALIAS):
        try:
            inside = note.using(backend="any", queue_name="orders").enqueue("in a transaction").status
        except UnknownQueue as error:
            inside = str(error)[:25]
    work(backend="any")
    result.refresh()
    return [result.status, inside]


def without_time_zones() -> Any:
    at = timezone.now() + timedelta(seconds=-1)
    made = note.using(run_after=at).enqueue("now")
    later = note.using(run_after=at + timedelta(hours=1)).enqueue("in an hour")
    work()
    moments = []
    for result in (made, later):
        before = result.enqueued_at
        result.refresh()
        moments += [result.enqueued_at, result.started_at, result.finished_at, result.last_attempted_at]
        assert abs(result.enqueued_at - before) < timedelta(minutes=1)
    return [ran, all(timezone.is_naive(moment) for moment in moments if moment), later.status]


for name in ("default", ALIAS):
    call_command("migrate", database=name, verbosity=0)
scenes = [
    transactions,
    order,
    outcomes,
    threads,
    results_by_path,
    a_look_in_a_transaction,
    what_listeners_are_told,
    in_an_event_loop,
    any_queue,
    without_time_zones,
    *django_admin_scenes.scenes,
    *django_more_scenes.scenes,
]
by_name = {scene.__name__: scene for scene in scenes}
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    ran.clear()
    for job in backend.forge.sync.jobs.list(limit=1000):
        backend.forge.sync.jobs.delete(job.id)
    try:
        answer = {"returned": by_name[line.strip()]()}
    except Exception:
        answer = {"failed": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)

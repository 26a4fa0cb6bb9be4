"""Django's own tests of its tasks, run against our backend: `make test-django`.

They come with the source of Django, which pip downloads, and nothing in them is changed. Their dummy backend is ours, and so
is their immediate one, with a worker that runs at once. Before Django 6.0 the tests are those of 6.1, of django-tasks.
"""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import django
from django.conf import settings
from psycopg.conninfo import conninfo_to_dict

from forge_jobs.testing.local_postgres import LocalPostgres

FOLDER = Path(__file__).parents[3] / "build" / "django"
IS_BACKPORT = django.VERSION < (6, 0)
VERSION = "6.1.3" if IS_BACKPORT else django.get_version()
PACKAGE = "django_tasks" if IS_BACKPORT else "django.tasks"

IN_MEMORY = "it changes what DummyBackend has in memory"
NO_RESULTS = "it asks that ImmediateBackend has no results, and takes no run_after; ours has both"
IN_A_THREAD = "it asks that what the task raises interrupts its caller; it runs in a worker"
UNCOMMITTED = "it asks that a task runs before the transaction has committed in which it was enqueued"
SKIPPED: dict[str, str] = {
    "DummyBackendTestCase.test_refresh_result": IN_MEMORY,
    "DummyBackendTestCase.test_refresh_result_async": IN_MEMORY,
    "ImmediateBackendTestCase.test_cannot_get_result": NO_RESULTS,
    "ImmediateBackendTestCase.test_cannot_refresh_result": NO_RESULTS,
    "ImmediateBackendTestCase.test_cannot_pass_run_after": NO_RESULTS,
    "ImmediateBackendTestCase.test_throws_keyboard_interrupt": IN_A_THREAD,
    "ImmediateBackendTransactionTestCase.test_doesnt_wait_until_transaction_commit_by_default": UNCOMMITTED,
}
NOT_BEFORE: dict[str, str] = dict.fromkeys(
    [
        "CustomBackendTestCase.test_enqueue_async_task_on_non_async_backend",
        "CustomBackendTestCase.test_no_enqueue",
        "DummyBackendTestCase.test_validate_disallowed_async_task",
        "TaskTestCase.test_pickle_task",
        "TaskTestCase.test_pickle_task_result",
        "TaskTestCase.test_run_after_in_decorator",
        "TaskTestCase.test_unpickle_arbitrary_string",
        "TaskTestCase.test_unpickle_non_task_object",
    ],
    "it asks for what django-tasks does not have, or says otherwise",
)


def fetched() -> Path:
    """Return the folder that has Django's tests of its tasks, which were downloaded if need be."""
    there = FOLDER / VERSION
    if not there.is_dir():
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "django"]
            subprocess.run([*pip, "--ignore-requires-python", "-d", folder, f"django=={VERSION}"], check=True)
            [source] = Path(folder).glob("*.tar.gz")
            with tarfile.open(source) as archive:
                tests = [member for member in archive if "/tests/tasks/" in member.name]
                archive.extractall(folder, tests, filter="data")
            [tasks] = Path(folder).glob("*/tests/tasks")
            shutil.copytree(tasks, there / "tasks")
    return there


def configure(database: Mapping[str, Any]) -> None:
    """Django is set up with this database, and has our backends for its own."""
    settings.configure(
        DATABASES={"default": dict(database)},
        INSTALLED_APPS=["forge_jobs.integrations.django"],
        TASKS={"default": {"BACKEND": "forge_jobs.integrations.django.backend.ForgeBackend"}},
        USE_TZ=True,
    )
    django.setup()
    # Some tests read the results of a backend in memory in an event loop.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    if IS_BACKPORT:
        take_backport_for_django()
    from django.core.management import call_command
    from django.test import SimpleTestCase

    from forge_jobs.integrations.django.backend import backends

    call_command("migrate", verbosity=0)
    next(backends()).forge.sync.queues.set("default", max_attempts=1)
    SimpleTestCase.databases = {"default"}  # those of Django's own backends need none
    put_ours_in_place()


def take_backport_for_django() -> None:
    """What imports `django.tasks` gets django-tasks, with the names of Django's."""
    for module in ("", ".base", ".exceptions", ".signals", ".backends.dummy", ".backends.immediate"):
        sys.modules[f"django.tasks{module}"] = import_module(f"django_tasks{module}")
    named = {name: vars(import_module(f"django_tasks.{name}")) for name in ("base", "exceptions", "signals")}
    vars(import_module("django_tasks"))["Task"] = named["base"]["Task"]
    named["signals"]["logger"] = logging.getLogger("django.tasks")
    for name in ("InvalidTask", "InvalidTaskBackend"):
        named["exceptions"][name] = named["exceptions"][f"{name}Error"]


def put_ours_in_place() -> None:
    """What Django's tests take for the dummy backend and for the immediate one is ours."""
    from forge_jobs.integrations.django.backend import ForgeBackend

    class Dummy(ForgeBackend):
        made: ClassVar[list[str]] = []

        def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            result = super().enqueue(task, args, kwargs)
            self.made.append(result.id)
            return result

        @property
        def results(self) -> list[Any]:
            return [self.get_result(job_id) for job_id in self.made]

        def clear(self) -> None:
            for job_id in self.made:
                self.forge.sync.jobs.delete(int(job_id))
            self.made.clear()

    class Immediate(ForgeBackend):
        def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            result = super().enqueue(task, args, kwargs)
            in_a_thread(lambda: asyncio.run(self._work()))
            result.refresh()
            return result

        async def _work(self) -> None:
            from forge_jobs.worker.worker import Worker

            async with self.forge as forge:
                await Worker(forge, queues=["default"]).run(until_empty=True)

    replace("backends.dummy", DummyBackend=Dummy)
    replace("backends.immediate", ImmediateBackend=Immediate)


def replace(module: str, **things: Any) -> None:
    """The module of the task framework has these things."""
    vars(import_module(f"{PACKAGE}.{module}")).update(things)


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a thread of its own, where no event loop runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def run(folder: Path) -> bool:
    """Run the tests of the package `tasks` in the folder and print what came of them; return whether none has failed."""
    sys.path.insert(0, str(folder))
    suite = unittest.TestSuite()
    for path in sorted((folder / "tasks").glob("test_*.py")):
        module = import_module(f"tasks.{path.stem}")
        for name, reason in (SKIPPED | (NOT_BEFORE if IS_BACKPORT else {})).items():
            case, _, method = name.partition(".")
            if hasattr(getattr(module, case, None), method):
                setattr(
                    getattr(module, case),
                    method,
                    unittest.skip(reason)(getattr(getattr(module, case), method)),
                )
        suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    result = unittest.TextTestRunner(verbosity=0).run(suite)
    for test, reason in result.skipped:
        print(f"skipped {test.id()}: {reason}")
    failed = len(result.failures) + len(result.errors)
    passed = result.testsRun - failed - len(result.skipped)
    print(f"Django {django.get_version()}, {PACKAGE}, {settings.DATABASES['default']['ENGINE']}:")
    print(f"{passed} passed, {failed} failed, {len(result.skipped)} skipped")
    return not failed


def main() -> None:
    """Run Django's tests on SQLite, or with the argument `postgres` on a PostgreSQL that is started."""
    if sys.argv[1:] == ["postgres"]:
        with LocalPostgres(settings={"fsync": "off"}) as server:
            options = conninfo_to_dict(server.url())
            name = options.pop("dbname")
            configure({"ENGINE": "django.db.backends.postgresql", "NAME": name, "OPTIONS": options})
            is_fine = run(fetched())
    else:
        with tempfile.TemporaryDirectory() as folder:
            options = {"timeout": 30, "transaction_mode": "IMMEDIATE"}
            name = os.path.join(folder, "jobs.sqlite3")
            configure({"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options})
            is_fine = run(fetched())
    sys.exit(not is_fine)


if __name__ == "__main__":
    main()

"""Scenes of connections, of the command line and of helpers for tests, which `django_program` runs."""

# mypy: disable-error-code="untyped-decorator,misc"

import io
import os
import threading
import unittest
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.test import TestCase, TransactionTestCase

from forge_jobs.integrations.django.connection_care import of_one_task
from forge_jobs.integrations.django.models import shown_backend
from forge_jobs.integrations.django.tasks_api import tasks
from forge_jobs.integrations.django.testing import assert_enqueued, delete_tasks, refute_enqueued, run_tasks

pids: list[int] = []


@tasks.task
def server() -> int:
    with connections["jobs"].cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid()" if connections["jobs"].vendor == "postgresql" else "SELECT 0"
        )
        pids.append(cursor.fetchone()[0])
    return threading.get_ident()


@tasks.task
def kill() -> None:
    """All other connections of the project to the database are ended by the server."""
    with connections["jobs"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY (%s)", [pids])


@tasks.task
def leave_open() -> None:
    transaction.atomic(using="jobs").__enter__()


@tasks.task(backend="atomic")
def sell(item: str, *, fails: bool = False) -> str:
    with connections["jobs"].cursor() as cursor:
        cursor.execute("INSERT INTO sold (item) VALUES (%s)", [item])
    if fails:
        raise LookupError(item)
    return item


@tasks.task
def add_group(name: str) -> str:
    Group.objects.create(name=name)
    return name


@tasks.task
def add_and_fail(name: str) -> None:
    with connections["jobs"].cursor() as cursor:
        cursor.execute("INSERT INTO sold (item) VALUES (%s)", [name])
    raise LookupError(name)


@tasks.task(takes_context=True)
def again(context: Any, left: int) -> int:
    if left:
        transaction.on_commit(lambda: again.enqueue(left - 1), using="jobs")
    return context.attempt  # type: ignore[no-any-return]


@tasks.task(backend="any", takes_context=True)
def third_time(context: Any) -> int:
    if context.attempt < 3:
        raise ConnectionError(context.attempt)
    return context.attempt  # type: ignore[no-any-return]


def work(**options: Any) -> None:
    call_command("forge_worker", until_empty=True, concurrency=1, **options)


def sold() -> list[str]:
    with connections["jobs"].cursor() as cursor:
        cursor.execute("SELECT item FROM sold ORDER BY item")
        return [item for (item,) in cursor.fetchall()]


@tasks.task(backend="beside")
def beside(name: str) -> str:
    return name


def make_sold() -> None:
    with connections["jobs"].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS sold")
        cursor.execute("CREATE TABLE sold (item varchar(20) NOT NULL)")


def connections_are_ended_between_tasks() -> Any:
    """The task runs in one thread, whose connection is to be kept for ever, and is killed meanwhile."""
    settings = connections.settings["jobs"]
    kept, settings["CONN_MAX_AGE"] = settings["CONN_MAX_AGE"], None
    settings["CONN_HEALTH_CHECKS"] = False
    try:
        pids.clear()
        said: list[Any] = []

        def run() -> None:
            for _ in range(3):
                try:
                    with of_one_task():
                        server.call()
                except Exception as error:
                    said.append(repr(error))
                if connections["jobs"].vendor == "postgresql":
                    other = threading.Thread(target=in_order_closed)
                    other.start()
                    other.join()
            connections["jobs"].close()

        def in_order_closed() -> None:
            kill.call()
            connections["jobs"].close()

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        return [said, len(pids), len(set(pids))]
    finally:
        settings["CONN_MAX_AGE"] = kept


def a_pool_has_dead_connections() -> Any:
    if connections["jobs"].vendor != "postgresql":
        return ["SUCCESSFUL"] * 3
    settings = connections.settings["jobs"]
    connections["jobs"].close()
    settings["OPTIONS"] = {**settings["OPTIONS"], "pool": {"min_size": 1, "max_size": 1}}
    errors = io.StringIO()
    try:
        pids.clear()
        results = []
        for _ in range(3):
            results.append(server.enqueue())
            connections["jobs"].close()  # as at the end of a request
            call_command("forge_worker", until_empty=True, concurrency=2, stderr=errors)
            results[-1].refresh()
            connections["jobs"].close()
            end_by_psycopg(settings)
        return (
            [result.status for result in results]
            if "wait for each other" in errors.getvalue()
            else errors.getvalue()
        )
    finally:
        connections["jobs"].close()
        connections["jobs"].close_pool()
        settings["OPTIONS"] = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}


def end_by_psycopg(settings: Any) -> None:
    import psycopg

    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    with psycopg.connect(dbname=settings["NAME"], autocommit=True, **options) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = ANY (%s)", [pids]
        )


def a_task_leaves_a_transaction_open() -> Any:
    results = [leave_open.enqueue(), server.enqueue()]
    work()
    for result in results:
        result.refresh()
    return [[result.status for result in results], results[0].errors[0].traceback.splitlines()[-1]]


def atomic_tasks_end_with_their_work() -> Any:
    make_sold()
    results = [sell.enqueue("a bike"), sell.enqueue("a book", fails=True)]
    work(backend="atomic")
    for result in results:
        result.refresh()
    return [sold(), results[0].return_value, results[1].status, len(results[1].errors)]


def the_command_line_knows_the_project() -> Any:
    result = server.enqueue()
    out = [subprocess_like("--json", "jobs", "show", result.id), subprocess_like("jobs", "why", "999999")]
    try:
        call_command("forge", "jobs", "why", "999999", stderr=io.StringIO())
    except CommandError as error:
        failed = error.returncode
    return [
        f'"id": {result.id}' in out[0][1] or f'"id":{result.id}' in out[0][1],
        out[1][0],
        out[1][2],
        failed,
        "FORGE_APP" in os.environ,
    ]


def subprocess_like(*words: str) -> tuple[Any, str, str]:
    from forge_jobs.integrations.django.management.commands.forge import Command

    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        try:
            Command().run_from_argv(["manage.py", "forge", *words, "--settings", "x", "--backend=default"])
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), errors.getvalue()


class InATransaction(TestCase):
    databases = {"default", "jobs"}  # noqa: RUF012

    def test_tasks_are_seen_and_run(self) -> None:
        refute_enqueued(add_group)
        result = add_group.enqueue("readers")
        assert_enqueued(add_group, ["readers"], {}, count=1, queue="default", state="pending", priority=0)
        refute_enqueued(add_group, ["writers"])
        with self.assertRaisesRegex(AssertionError, "readers.*queue default, pending"):
            assert_enqueued(add_group, ["writers"])
        [ran] = run_tasks()
        assert ran.return_value == "readers" and Group.objects.filter(name="readers").exists()
        result.refresh()
        assert (result.status, result.attempts) == ("SUCCESSFUL", 1)
        assert run_tasks() == []

    def test_what_fails_is_raised_and_leaves_nothing(self) -> None:
        make_sold()
        add_and_fail.enqueue("a bike")
        with self.assertRaisesRegex(LookupError, "a bike"):
            run_tasks()
        assert sold() == []
        again.using(run_after=None).enqueue(0)
        results = run_tasks(raise_on_failure=False)
        assert [result.status for result in results] == ["SUCCESSFUL"]  # each is called once

    def test_retries_are_played(self) -> None:
        third_time.enqueue()
        with self.assertRaisesRegex(ConnectionError, "1"):
            run_tasks(backend="any")
        again = third_time.enqueue()
        [result] = run_tasks(backend="any", retries=True)
        assert (result.return_value, result.attempts, len(result.errors)) == (3, 3, 2)
        again.refresh()
        assert (again.status, again.is_finished) == ("SUCCESSFUL", True)
        add_and_fail.enqueue("a bike")  # which has one attempt
        make_sold()
        [result] = run_tasks(raise_on_failure=False, retries=True)
        assert (result.status, result.attempts) == ("FAILED", 1)

    def test_a_job_that_is_no_task_is_left_with_a_warning(self) -> None:
        made = shown_backend().forge.enqueue_sync("shop.bill", connection=connections["jobs"])
        add_group.enqueue("readers")
        with self.assertWarnsRegex(
            UserWarning, f"Job {made.id} is of the kind 'shop.bill', which is no task, and was"
        ):
            [result] = run_tasks()
        assert result.return_value == "readers"

    def test_each_database_has_tasks_of_its_own(self) -> None:
        beside.enqueue("first")
        refute_enqueued(add_group)
        add_group.enqueue("readers")
        beside.enqueue("second")
        assert_enqueued(beside, count=2)
        assert [ran.args for ran in run_tasks(backend="beside")] == [["first"], ["second"]]
        assert [ran.args for ran in run_tasks()] == [["readers"]]

    def test_callbacks_enqueue_more(self) -> None:
        again.enqueue(2)
        assert [result.args for result in run_tasks()] == [[2], [1], [0]]
        with self.captureOnCommitCallbacks(using="jobs", execute=True):
            transaction.on_commit(lambda: add_group.enqueue("later"), using="jobs")
            refute_enqueued(add_group)
        assert_enqueued(add_group, ["later"])


class Committed(TransactionTestCase):
    databases = {"jobs"}  # noqa: RUF012
    available_apps = ()

    def setUp(self) -> None:
        delete_tasks()

    def test_a_worker_runs_tasks(self) -> None:
        assert_enqueued(server, count=0)
        result = server.enqueue()
        again.enqueue(1)
        assert [ran.task.name for ran in run_tasks()] == ["server", "again", "again"]
        result.refresh()
        assert result.return_value != threading.get_ident()

    def test_what_fails_is_said(self) -> None:
        make_sold()
        add_and_fail.enqueue("a bike")
        with self.assertRaisesRegex(AssertionError, "add_and_fail has failed"):
            run_tasks()

    def test_what_fails_and_has_attempts_left_is_said_or_tried_again(self) -> None:
        third_time.enqueue()
        with self.assertRaisesRegex(AssertionError, "third_time has failed"):
            run_tasks(backend="any")
        delete_tasks()
        third_time.enqueue()
        [result] = run_tasks(backend="any", retries=True)
        assert (result.return_value, result.attempts) == (3, 3)


def tests_of_django() -> Any:
    suite = unittest.TestSuite(
        [unittest.defaultTestLoader.loadTestsFromTestCase(case) for case in (InATransaction, Committed)]
    )
    out = io.StringIO()
    result = unittest.TextTestRunner(stream=out, verbosity=0).run(suite)
    return [result.testsRun, "" if result.wasSuccessful() else out.getvalue()]


scenes = [
    connections_are_ended_between_tasks,
    a_pool_has_dead_connections,
    a_task_leaves_a_transaction_open,
    atomic_tasks_end_with_their_work,
    the_command_line_knows_the_project,
    tests_of_django,
]

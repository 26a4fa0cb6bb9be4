"""Django's tasks as jobs, in projects that are processes of their own, on both databases."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forge_jobs.errors import InvalidInput
from forge_jobs.integrations.django.database_url import POSTGRES, SQLITE, database_url
from tests.integrations.conftest import Project, Start
from tests.pages import ROOT, commands

EXAMPLE = ROOT / "examples" / "django_shop"
ORDERS = """
from django.test import Client

for item in ("a book", "a bike"):
    answer = Client().post("/orders/", {"item": item}, headers={"host": "localhost"})
    print(answer.status_code, answer.json())
"""
STATUS = """
from django.test import Client

print(Client().get("/tasks/1/", headers={"host": "localhost"}).json())
"""


def said_by(command: list[str], folder: Path | None = None, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_task_is_part_of_the_transaction_of_its_own_database(project: Project) -> None:
    assert project.scene("transactions") == [
        ["kept", "alone"],
        False,
        "SUCCESSFUL",
        {"what": "kept"},
        True,
    ]


def test_tasks_of_a_larger_priority_come_first_and_those_of_later_wait(project: Project) -> None:
    assert project.scene("order") == [["first", "second", "last"], "READY"]


def test_results_and_errors_are_what_django_says(project: Project) -> None:
    values = [1, 2, 42, {"what": {"a": [1, 2]}, "b": None}]

    assert project.scene("outcomes") == [
        values,
        "FAILED",
        "builtins.LookupError",
        True,
        [1, 1],
        [5, 5, 5],
        True,
    ]


def test_threads_share_what_is_known_of_tasks(project: Project) -> None:
    assert project.scene("threads") == [[[number], ["first"], True] for number in range(8)]


def test_a_result_is_found_by_the_path_of_its_task_and_a_strange_id_has_none(
    project: Project,
) -> None:
    assert project.scene("results_by_path") == [["known by its path"], ["-1", "0", "9" * 30, "x"]]


def test_a_transaction_sees_the_results_of_the_tasks_that_it_enqueued(project: Project) -> None:
    assert project.scene("a_look_in_a_transaction") == ["READY", "READY", True]


def test_listeners_are_told_how_a_task_ended_and_do_not_change_it(project: Project) -> None:
    answer = project.scene("what_listeners_are_told")

    assert answer[0] == [
        ["RUNNING", False, []],
        ["SUCCESSFUL", True, []],
        ["RUNNING", False, []],
        ["FAILED", True, ["__main__.OutOfStock"]],
    ]
    assert answer[1:] == [
        ["SUCCESSFUL", "FAILED"],
        "builtins.Exception",  # the class of a main file is found by nobody else
        "Traceback (most recent call last):",
        "OutOfStock: no bike is left",
    ]


def test_an_event_loop_is_told_to_await(project: Project) -> None:
    said, status = project.scene("in_an_event_loop")

    assert [sentence.rpartition("awaited: ")[2] for sentence in said] == [
        "await task.aenqueue(...).",
        "aget_result or arefresh.",
    ]
    assert status == "READY"


def test_a_queue_that_django_allows_is_made_when_it_is_first_used(project: Project) -> None:
    inside = (
        "There is no queue 'orders" if project.kind == "sqlite" else "READY"
    )  # the former is locked meanwhile

    assert project.scene("any_queue") == ["SUCCESSFUL", inside]


def test_without_time_zones_moments_are_those_of_the_project(start: Start) -> None:
    with start(JOBS_WITHOUT_TZ="1", TZ="America/New_York") as project:
        answer = project.scene("without_time_zones")

    assert answer == [["now"], True, "READY"]


@pytest.mark.parametrize(
    ("said", "path", "traceback"),
    [
        ("shop.OutOfStock: none\n  File x", "shop.OutOfStock", "...\n  File x\nshop.OutOfStock: none\n"),
        ("ValueError: none", "builtins.ValueError", "ValueError: none"),
        ("worker lost", "builtins.Exception", "worker lost"),
        ("see a.b: c", "builtins.Exception", "see a.b: c"),
    ],
)
def test_the_class_of_an_error_is_the_one_that_was_raised(said: str, path: str, traceback: str) -> None:
    program = (
        "from django.conf import settings; settings.configure();"
        "from forge_jobs.integrations.django.results import error_of;"
        f"print(repr(error_of({said!r})))"
    )
    [line] = said_by(["-c", program])

    shown = traceback.replace("...", "Traceback (most recent call last):")
    assert line == f"TaskError(exception_class_path={path!r}, traceback={shown!r})"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The example's folder, to be run in."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "shop"))


def test_the_example_of_a_shop_runs_by_the_commands_of_the_page(shop: Path) -> None:
    told = [shlex.split(c)[1:] for c in commands(ROOT / "docs" / "django.md") if c.startswith("python ")]
    assert [arguments[1] for arguments in told] == ["migrate", "forge_worker", "forge"]
    migrate, worker, look = told

    said_by(migrate, shop)
    assert said_by(["manage.py", "shell", "-v", "0", "-c", ORDERS], shop) == [
        "202 {'order': 1, 'task': '1'}",
        "409 {'error': 'out of stock'}",
    ]
    said_by([*worker, "--until-empty"], shop)
    assert said_by(["manage.py", "shell", "-v", "0", "-c", STATUS], shop) == [
        "{'status': 'SUCCESSFUL', 'result': 'order 1, a book, is confirmed'}"
    ]
    assert said_by(look, shop) == ["No jobs."]


def test_the_tests_of_the_example_pass_in_django(shop: Path) -> None:
    assert said_by(["manage.py", "test", "--no-input"], shop)[0] == "Found 2 test(s)."


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"ENGINE": SQLITE, "NAME": "/srv/shop.sqlite3"}, "sqlite:////srv/shop.sqlite3"),
        (
            {
                "ENGINE": POSTGRES,
                "NAME": "shop",
                "USER": "a b",
                "PASSWORD": "p@ss",
                "HOST": "db",
                "PORT": 5433,
            },
            "postgresql://a%20b:p%40ss@db:5433/shop",
        ),
        (
            {
                "ENGINE": POSTGRES,
                "NAME": "shop",
                "HOST": "/run/pg",
                "PORT": "5433",
                "OPTIONS": {"sslmode": "require"},
            },
            "postgresql:///shop?sslmode=require&host=%2Frun%2Fpg&port=5433",
        ),
    ],
)
def test_the_url_is_that_of_django_s_database(settings: dict[str, Any], url: str) -> None:
    assert database_url("default", settings) == url


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"ENGINE": "django.db.backends.mysql", "NAME": "shop"},
            "has the engine django.db.backends.mysql, allowed",
        ),
        ({"ENGINE": SQLITE, "NAME": ":memory:"}, "is a SQLite in memory, allowed for jobs is a file"),
    ],
)
def test_a_database_that_cannot_hold_jobs_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        database_url("default", settings)

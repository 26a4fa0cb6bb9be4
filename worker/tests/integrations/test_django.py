"""Django's tasks as jobs, in projects that are processes of their own, on both databases."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from forge_jobs.errors import InvalidInput
from forge_jobs.integrations.django.database_url import POSTGRES, SQLITE, database_url
from tests.storage.conftest import *  # noqa: F403  the databases
from tests.storage.databases import Database

PROGRAM = Path(__file__).with_name("django_program.py")
EXAMPLE = Path(__file__).parents[3] / "examples" / "django_shop.py"


def said(command: list[str], **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def databases(database: Database, tmp_path: Path) -> dict[str, Any]:
    """The DATABASES of a project: the jobs are in the second one."""
    first = {"ENGINE": SQLITE, "NAME": f"{tmp_path}/other.sqlite3"}
    if database.kind == "sqlite":
        return {
            "default": first,
            "jobs": {
                "ENGINE": SQLITE,
                "NAME": database.url.removeprefix("sqlite:///"),
                "OPTIONS": {"timeout": 30},
            },
        }
    options = conninfo_to_dict(database.url)
    jobs = {
        "NAME": options.pop("dbname"),
        "HOST": options.pop("host", ""),
        "USER": options.pop("user", ""),
        "PORT": options.pop("port", ""),
    }
    return {"default": first, "jobs": {"ENGINE": POSTGRES, **jobs}}


def scene(name: str, databases: dict[str, Any], **environment: str) -> Any:
    [answer] = said(
        [str(PROGRAM), name], JOBS_DATABASES=json.dumps(databases), JOBS_ALIAS="jobs", **environment
    )
    return json.loads(answer)


def test_a_task_is_part_of_the_transaction_of_its_own_database(databases: dict[str, Any]) -> None:
    assert scene("transactions", databases) == [
        ["kept", "alone"],
        False,
        "SUCCESSFUL",
        {"what": "kept"},
        True,
    ]


def test_tasks_of_a_larger_priority_come_first_and_those_of_later_wait(databases: dict[str, Any]) -> None:
    assert scene("order", databases) == [["first", "second", "last"], "READY"]


def test_results_and_errors_are_what_django_says(databases: dict[str, Any]) -> None:
    values = [1, 2, 42, {"what": {"a": [1, 2]}, "b": None}]

    assert scene("outcomes", databases) == [
        values,
        "FAILED",
        "builtins.LookupError",
        True,
        [1, 1],
        [5, 5, 5],
        True,
    ]


def test_threads_share_what_is_known_of_tasks(databases: dict[str, Any]) -> None:
    assert scene("threads", databases) == [[[number], ["first"], True] for number in range(8)]


def test_a_result_is_found_by_the_path_of_its_task_and_a_strange_id_has_none(
    databases: dict[str, Any],
) -> None:
    assert scene("results_by_path", databases) == [["known by its path"], ["-1", "0", "9" * 30, "x"]]


def test_the_first_look_at_a_result_waits_for_no_transaction_of_the_caller(databases: dict[str, Any]) -> None:
    assert scene("first_look_in_a_transaction", databases) == "READY"


def test_without_time_zones_moments_are_those_of_the_project(databases: dict[str, Any]) -> None:
    answer = scene("without_time_zones", databases, JOBS_WITHOUT_TZ="1", TZ="America/New_York")

    assert answer == [["now"], True, "READY"]


def test_the_example_of_a_shop_runs(tmp_path: Path) -> None:
    assert said([str(EXAMPLE)], SHOP_DATABASE=f"{tmp_path}/shop.sqlite3") == [
        "a book READY",
        "a bike is not in stock",
        "SUCCESSFUL order 1 is confirmed at attempt 1",
    ]


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

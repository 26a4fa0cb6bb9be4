"""A project of Django in a process of its own, for all tests of a database, which asks it for scenes by their names."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.storage.conftest import *  # noqa: F403  the databases

WORKER = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("django_program.py")


@dataclass
class Project:
    """A process that runs a scene for each name that it is told."""

    kind: str  # of its database
    process: subprocess.Popen[str]

    def scene(self, name: str) -> Any:
        """Return what the scene returns."""
        assert self.process.stdin and self.process.stdout
        print(name, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert "failed" not in answer, answer["failed"]
        return answer["returned"]


Start = Callable[..., Any]


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def start(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: str
) -> Iterator[Start]:
    """What starts a project with a SQLite file as its default database, and jobs in another one."""
    folder = tmp_path_factory.mktemp("django")
    made: list[str] = []

    @contextmanager
    def started(**environment: str) -> Iterator[Project]:
        number = secrets.token_hex(4)
        jobs: dict[str, Any] = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{folder}/{number}.sqlite3",
            "OPTIONS": {"timeout": 30},
        }
        if request.param == "postgres":
            with psycopg.connect(postgres_server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE django_{number}")
            made.append(f"django_{number}")
            options = conninfo_to_dict(postgres_server, dbname=made[-1])
            name = options.pop("dbname")
            jobs = {"ENGINE": "django.db.backends.postgresql", "NAME": name, "OPTIONS": options}
        default = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/{number}.default.sqlite3"}
        databases = json.dumps({"default": default, "jobs": jobs})
        with subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env={**os.environ, "PYTHONPATH": str(WORKER), "JOBS_DATABASES": databases, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield Project(request.param, process)
            finally:
                assert process.stdin
                process.stdin.close()
                process.wait(30)

    yield started
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def project(start: Start) -> Iterator[Project]:
    with start() as project:
        yield project

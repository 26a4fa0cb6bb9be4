"""`forge-jobs move`: from SQLite to PostgreSQL, as people type it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import CommandLine, migrated
from tests.storage.conftest import postgres  # noqa: F401  a fixture
from tests.storage.databases import Database

PAGE = Path(__file__).parents[2] / "docs" / "moving.md"


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


@pytest.fixture
def target(postgres: Database) -> str:  # noqa: F811
    return postgres.url


def moved(cli: CommandLine, *arguments: str) -> Any:
    """Move; return the document. A slow machine tells its progress beside it."""
    answer = cli("move", *arguments, "--json")
    assert answer.code == 0, answer
    assert all("progress" in json.loads(line) for line in answer.error.splitlines()), answer
    return answer.document


def test_jobs_are_moved_and_the_file_says_where_they_are(cli: CommandLine, target: str) -> None:
    cli.fine("enqueue", "echo", '{"n": 1}', "--key", "one")
    cli.fine("cron", "set", "nightly", "0 3 * * *", "--kind", "echo")

    would = moved(cli, "--from", cli.url, "--to", target, "--dry-run")
    report = moved(cli, "--from", cli.url, "--to", target)

    assert (would["moved"], would["dry_run"]) == (1, True)
    assert (report["moved"], report["dry_run"]) == (1, False)
    assert report["jobs"] == [{"queue": "default", "state": "pending", "jobs": 1}]
    [job] = cli.fine("jobs", "list", "--database-url", target)
    assert (job["payload"], job["key"]) == ({"n": 1}, "one")
    [cron] = cli.fine("cron", "list", "--database-url", target)
    assert cron["name"] == "nightly"
    refused = cli("enqueue", "echo", "{}")
    assert refused.code == 1
    assert refused.error.startswith("The jobs of this file were moved to postgresql://")
    again = cli("move", "--from", cli.url, "--to", target)
    assert (again.code, "already" in again.error) == (2, True)


def test_what_is_said_fits_people(cli: CommandLine, target: str) -> None:
    cli.fine("enqueue", "echo", "{}")

    answer = cli("move", "--from", cli.url, "--to", target)

    assert answer.code == 0, answer
    first, *table, last = answer.lines
    assert first.startswith("1 job moved to postgresql://")
    assert table[1].split() == ["default", "pending", "1"]
    assert last == "The file is shut. Give your programs the new URL."


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("sqlite:///nothing.sqlite", "There is no database"),
        (
            "postgresql://here/shop",
            "The database to be left is 'postgresql://here/shop', allowed is sqlite:///path.",
        ),
        ("sqlite://:memory:", "allowed is sqlite:///path."),
    ],
    ids=["no file", "PostgreSQL", "memory"],
)
def test_a_source_that_is_no_file_is_said(cli: CommandLine, target: str, source: str, said: str) -> None:
    answer = cli("move", "--from", source, "--to", target)

    assert (answer.code, said in answer.error) == (2, True), answer


def test_the_commands_of_the_page_succeed(cli: CommandLine, target: str) -> None:
    cli.fine("enqueue", "echo", "{}")
    commands = re.findall(r"^forge-jobs (.*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)

    for command in commands:
        name, *words = command.replace("sqlite:///jobs/data/queue.sqlite", cli.url).split()
        assert name == "move"
        moved(cli, *[target if word == "postgresql://shop@db/shop" else word for word in words])

    assert len(commands) == 2
    assert len(cli.fine("jobs", "list", "--database-url", target)) == 1


def test_a_target_that_is_no_postgresql_is_said(cli: CommandLine) -> None:
    answer = cli("move", "--from", cli.url)

    assert answer.code == 2
    assert "The database to move to is" in answer.error

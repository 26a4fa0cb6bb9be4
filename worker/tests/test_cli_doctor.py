"""`forge-jobs doctor`: each thing is fine, or has a remedy."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.client.doctor import examine
from forge_jobs.model.checkup import Health
from forge_jobs.storage.sqlite import SqliteStorage
from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def found(cli: CommandLine) -> tuple[int, dict[str, dict[str, Any]]]:
    answer = cli("doctor", "--json")
    return answer.code, {checkup["name"]: checkup for checkup in answer.document}


def test_of_a_database_that_is_well_everything_is_fine(cli: CommandLine):
    code, checkups = found(cli)

    assert code == 0
    assert [*checkups] == ["versions", "database", "migrations", "clock", "rights", "workers"]
    assert {checkup["health"] for checkup in checkups.values()} == {"fine"}
    assert {checkup["remedy"] for checkup in checkups.values()} == {None}
    assert cli("doctor").error == ""


def test_a_database_that_is_not_migrated_is_wrong_and_stays_so(cli: CommandLine):
    cli("db", "drop", "--force")

    code, checkups = found(cli)
    people = cli("doctor")

    assert (code, checkups["migrations"]["health"]) == (1, "wrong")
    assert checkups["migrations"]["remedy"] == "Run: forge-jobs db migrate"
    assert "rights" not in checkups, "there are no tables to have rights to"
    assert people.lines[-1] == "migrations: Run: forge-jobs db migrate"
    assert people.error == "Something is wrong: migrations.\n"
    assert cli.fine("db", "status")["found"] == 0


def test_a_file_that_is_not_there_is_not_made(cli: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORGE_DATABASE_URL", f"sqlite:///{cli.folder}/nix.sqlite")

    code, checkups = found(cli)

    assert (code, checkups["database"]["health"]) == (1, "wrong")
    assert not (cli.folder / "nix.sqlite").exists()


def test_a_server_that_is_away_is_said_with_what_to_do(cli: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORGE_DATABASE_URL", "postgresql://ada:s3cret@127.0.0.1:1/shop")

    code, checkups = found(cli)

    assert code == 1
    assert "s3cret" not in str(checkups)
    assert checkups["database"]["remedy"].startswith("See that the server runs")


def test_a_newer_database_needs_a_newer_release(cli: CommandLine):
    with sqlite3.connect(cli.folder / "queue.sqlite") as file:
        file.execute("INSERT INTO migration (number, name, applied_at, breaking) VALUES (999, 'later', 0, 1)")
    file.close()

    code, checkups = found(cli)

    assert (code, checkups["migrations"]["health"]) == (1, "wrong")
    assert checkups["migrations"]["remedy"] == "Install the release of forge-jobs that migrated it."


def test_jobs_that_no_worker_serves_need_one(cli: CommandLine):
    cli.fine("enqueue", "send")

    code, checkups = found(cli)

    assert (code, checkups["workers"]["health"]) == (0, "poor")
    assert checkups["workers"]["remedy"] == "Start one: forge-jobs worker APP --queues default"


async def test_a_database_whose_clock_is_another_is_not_as_well_as_it_could_be(tmp_path: Path):
    storage = SqliteStorage(
        f"sqlite:///{tmp_path}/queue.sqlite", clock=lambda: datetime.now(UTC) + timedelta(minutes=5)
    )
    async with Forge(storage=storage):
        pass

    [clock] = [checkup for checkup in await examine(Forge(storage=storage)) if checkup.name == "clock"]

    assert clock.health is Health.POOR
    assert clock.found.startswith("the database's and ours differ by 5 min")
    assert clock.remedy is not None and "NTP" in clock.remedy

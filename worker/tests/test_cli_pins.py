"""Jobs that are pinned to a version of the program are let go on with another one by the command line."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from forge_jobs import Context, Forge, Worker
from tests.command_line import CommandLine, migrated

SLEEPERS = 3


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """A command line beside jobs that version 1 of the program has begun, and that sleep."""
    cli = migrated(tmp_path, capsys, monkeypatch)
    cli.using(_begin)
    return cli


async def _begin(forge: Forge) -> None:
    @forge.handler(pin="version")
    async def onboard(ctx: Context) -> None:
        await ctx.sleep(3600)

    for _ in range(SLEEPERS):
        await onboard.enqueue()
    await Worker(forge, queues=["default"], version="1").run(until_empty=True)


def pinned_to(cli: CommandLine, job_id: int) -> str | None:
    version: str | None = cli.using(lambda forge: _version(forge, job_id))
    return version


async def _version(forge: Forge, job_id: int) -> str | None:
    pin = (await forge.jobs.get(job_id)).pin
    return None if pin is None else pin.version


def test_one_of_them_goes_on_with_any_version(cli: CommandLine) -> None:
    assert cli("jobs", "unpin", "1").out == "Job 1 goes on with any version of the program.\n"
    assert cli("jobs", "unpin", "1").out == "Job 1 was not pinned to a version of the program.\n"

    assert [pinned_to(cli, job_id) for job_id in (1, 2)] == [None, "1"]


def test_all_of_one_version_go_on_with_another(cli: CommandLine) -> None:
    to_2 = ("jobs", "repin", "1", "--to", "2")
    assert cli(*to_2, "--queue", "another", "--yes").out == "0 jobs go on with version 2.\n"
    assert cli(*to_2, "--dry-run").out == "3 jobs would go on with version 2. Nothing was changed.\n"
    assert pinned_to(cli, 1) == "1"
    assert cli(*to_2, "--kind", "onboard", "--yes").out == "3 jobs go on with version 2.\n"
    assert pinned_to(cli, 1) == "2"

    assert cli.fine("jobs", "repin", "2", "--yes") == {"repinned": SLEEPERS}
    assert pinned_to(cli, 1) is None


def test_nothing_goes_on_elsewhere_without_a_word(cli: CommandLine) -> None:
    answer = cli("jobs", "repin", "1")

    assert (answer.code, "pass --yes, or preview with --dry-run" in answer.error) == (2, True)
    assert pinned_to(cli, 1) == "1"


def test_a_version_that_an_operator_runs_hands_its_jobs_to_any_version_only(cli: CommandLine) -> None:
    with closing(sqlite3.connect(cli.folder / "queue.sqlite")) as database, database:
        database.execute("UPDATE pin SET pool = 'shop', version_id = '1id'")
    answer = cli("jobs", "repin", "1", "--to", "2", "--yes")

    assert answer.code != 0
    assert answer.error.endswith(
        "Version '1' is run by an operator and to is '2', allowed is none: any version goes on with its jobs.\n"
    )
    assert cli("jobs", "repin", "1", "--yes").out == "3 jobs go on with any version.\n"


def test_a_version_is_not_repinned_to_itself(cli: CommandLine) -> None:
    answer = cli("jobs", "repin", "1", "--to", "1", "--yes")

    assert answer.error.endswith("to is '1', allowed is another version than that of the jobs.\n")

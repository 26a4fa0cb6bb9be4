"""Jobs that are pinned to a version of the program are let go on with another one by the command line."""

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
    assert (
        cli("jobs", "repin", "1", "--to", "2", "--queue", "another").out == "0 jobs go on with version 2.\n"
    )
    assert cli("jobs", "repin", "1", "--to", "2", "--kind", "onboard").out == "3 jobs go on with version 2.\n"
    assert pinned_to(cli, 1) == "2"

    assert cli.fine("jobs", "repin", "2") == {"repinned": SLEEPERS}
    assert pinned_to(cli, 1) is None

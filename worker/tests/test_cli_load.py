"""`forge-jobs load` enqueues at a rate, and tells how long that took."""

from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.client.load import LoadRun, PlannedLoad, shares
from forge_jobs.errors import StorageUnavailable
from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_so_many_jobs_are_enqueued(cli: CommandLine):
    report = cli.fine("load", "echo", '{"n": 1}', "--count", "25", "--together", "10", "--tag", "trial")

    assert report["enqueued"] == 25
    assert report["call_seconds"].keys() == {"p50", "p95", "p99", "max"}
    jobs = cli.fine("jobs", "list", "--queue", "load", "--tag", "trial")
    assert (len(jobs), jobs[0]["payload"]) == (25, {"n": 1})


def test_a_load_takes_as_long_as_its_rate_says(cli: CommandLine):
    report = cli.fine("load", "echo", "--rate", "100", "--for", "300ms")

    assert report["enqueued"] == 30
    assert 0.29 <= report["seconds"] < 10


def test_a_dry_run_enqueues_nothing(cli: CommandLine):
    answer = cli("load", "echo", "--rate", "10", "--for", "1m", "--dry-run")

    assert answer.out == "600 jobs of kind 'echo' would be enqueued to queue 'load': 10 a second, 1 min.\n"
    assert "load" not in [queue["name"] for queue in cli.fine("queues", "list")]


def test_who_waits_is_told_how_the_jobs_ended(cli: CommandLine):
    worker = cli.process("worker", "forge_jobs.builtin:forge", "--queues", "load")
    try:
        report = cli("load", "echo", "--count", "20", "--wait", "60s", "--json").document
    finally:
        worker.terminate()
        worker.communicate(timeout=60)

    assert report["states"] == {"done": 20}
    assert report["waited_seconds"]["max"] >= report["waited_seconds"]["p50"] >= 0
    assert report["seconds_until_ended"] >= report["seconds"]


def test_jobs_that_nobody_runs_are_told_after_the_wait(cli: CommandLine):
    answer = cli("load", "echo", "--count", "3", "--wait", "100ms")

    assert "Of these: 3 not ended" in answer.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Neither --count nor --for is given, allowed is one of them."),
        (("--for", "1m"), "--for goes with --rate, and without --count."),
        (("--for", "1m", "--rate", "2", "--count", "3"), "--for goes with --rate, and without --count."),
        (("--for", "100d", "--rate", "10000"), "allowed are 1 to 10,000,000."),
        (("--count", "0"), "--count is '0'"),
    ],
)
def test_a_wrong_load_is_one_sentence(cli: CommandLine, options: tuple[str, ...], sentence: str):
    answer = cli("load", "echo", *options)

    assert answer.code == 2
    assert sentence in answer.error


async def test_calls_without_an_answer_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:

        async def away(*arguments: Any, **options: Any) -> None:
            raise StorageUnavailable("The database is away.")

        monkeypatch.setattr(forge, "enqueue_many", away)

        report = await LoadRun(forge, PlannedLoad("echo", {}, 10, together=5)).run()

    assert (report.enqueued, report.lost_calls, report.error) == (0, 2, "The database is away.")


async def test_an_outage_while_jobs_are_waited_for_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("forge_jobs.client.load.LOOK_EVERY", 0.001)
    monkeypatch.setattr("forge_jobs.client.load.LOOKED_AT", 2)
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:
        ends, looks = forge.storage.ends, list[int]()
        look = ends.look

        async def away_at_first(job_ids: Any, **options: Any) -> Any:
            looks.append(len(job_ids))
            if len(looks) == 1:
                raise StorageUnavailable("The database is away.")
            return await look(job_ids, **options)

        monkeypatch.setattr(ends, "look", away_at_first)
        run = LoadRun(forge, PlannedLoad("echo", {}, 6))
        report = await run.run()
        for job in await forge.jobs.list(
            kind="echo", limit=2
        ):  # the last ones, beside others that do not end
            await forge.jobs.complete(job.id)
        report = await run._ended(report, 0.0, 1.0)

    assert (report.enqueued, report.error) == (6, "The database is away.")
    assert report.states == {"done": 2, "not ended": 4}


def test_shares_are_of_what_there_is():
    assert shares([]) == {}
    assert shares([3.0, 1.0, 2.0]) == {"p50": 2.0, "p95": 3.0, "p99": 3.0, "max": 3.0}

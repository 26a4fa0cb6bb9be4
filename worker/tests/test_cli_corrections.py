"""Single jobs are ended and changed by hand."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from forge_jobs import Forge
from forge_jobs.errors import InvalidInput
from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def enqueued(cli: CommandLine, *options: str) -> str:
    return str(cli.fine("enqueue", "send", *options)["id"])


def test_a_job_is_completed_with_a_result(cli: CommandLine):
    id = enqueued(cli)

    assert cli.fine("jobs", "complete", id, "--result", '{"sent": 2}') == [{"id": int(id), "result": "done"}]

    assert cli.fine("jobs", "wait", id)["result"] == {"sent": 2}


def test_a_job_is_failed_with_a_reason(cli: CommandLine):
    id = enqueued(cli, "--delay", "1h")

    assert cli.fine("jobs", "fail", id, "--reason", "the order was withdrawn")[0]["result"] == "dead"

    assert cli.fine("jobs", "show", id)["error"] == "the order was withdrawn"
    assert cli.fine("jobs", "fail", enqueued(cli))[0]["result"] == "dead"


def test_all_that_may_be_changed_is_changed(cli: CommandLine):
    id = enqueued(cli)
    cli.fine("queues", "set", "mail")

    cli.fine(
        *("jobs", "change", id, "--queue", "mail", "--priority", "-2", "--attempts", "1"),
        *("--max-attempts", "forever", "--timeout", "90s", "--run-at", "2040-01-01"),
    )

    job = cli.fine("jobs", "show", id)
    assert {name: job[name] for name in ("queue", "priority", "attempt", "max_attempts", "state")} == {
        **{"queue": "mail", "priority": -2, "attempt": 1, "max_attempts": None, "state": "scheduled"}
    }
    assert (job["timeout_seconds"], job["run_at"]) == (90.0, "2040-01-01T00:00:00+00:00")
    cli.fine("jobs", "change", id, "--timeout", "none", "--delay", "0s")
    assert cli.fine("jobs", "show", id)["timeout_seconds"] is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Nothing to change is given, allowed are queue, priority, attempts, max_attempts, timeout"),
        (("--attempts", "5"), "would have 5 attempts of 5, allowed is at least one that is left."),
        (("--delay", "1s", "--run-at", "2040-01-01"), "delay and run_at are both given"),
        (("--queue", "mial"), "There is no queue 'mial'"),
        (("--timeout", "0"), "--timeout is '0', allowed is more than 0 s"),
    ],
)
def test_a_wrong_change_is_one_sentence_and_changes_nothing(
    cli: CommandLine, options: tuple[str, ...], sentence: str
):
    id = enqueued(cli)
    before = cli.fine("jobs", "show", id)

    answer = cli("jobs", "change", id, *options)

    assert answer.code != 0
    assert sentence in answer.error

    assert cli.fine("jobs", "show", id) == before


def test_what_cannot_be_ended_keeps_no_other_from_it(cli: CommandLine):
    one, other = enqueued(cli), enqueued(cli)
    cli.fine("jobs", "complete", one)

    answer = cli("jobs", "complete", one, other)

    assert f"Job {one} is done; only a job that waits, is dead or expired can be completed." in answer.error
    assert cli.fine("jobs", "show", other)["state"] == "done"


async def test_a_reason_is_one_line(tmp_path: Path):
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:
        for wrong in ("", "a\nb", 3):
            with pytest.raises(InvalidInput, match="reason is"):
                await forge.jobs.fail(1, wrong)
        with pytest.raises(InvalidInput, match="timeout is 0, allowed is more than zero"):
            await forge.jobs.change(1, timeout=0)


async def test_who_waits_hears_of_a_job_that_is_completed_by_hand(tmp_path: Path):
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:

        @forge.handler
        async def send() -> int:
            return 1

        job = await send.options(delay=timedelta(hours=1)).enqueue()
        waiting = asyncio.ensure_future(forge.wait(job, timeout=10))
        await forge.jobs.complete(job, 7)

        assert await waiting == 7


def test_the_history_of_a_job_is_shown(cli: CommandLine):
    id = enqueued(cli, "--delay", "1h")
    cli.fine("jobs", "fail", id, "--reason", "withdrawn")

    first, deed, last = cli.fine("jobs", "history", id)
    assert (first["what"], last["what"], last["note"]) == ("enqueued", "dead", "withdrawn")
    assert (deed["what"], deed["note"]) == ("by hand", "failed: scheduled to dead")
    assert deed["by"] in cli("jobs", "history", id).out


def test_who_does_it_is_noted_as_the_command_says(cli: CommandLine):
    id = enqueued(cli, "--delay", "1h")

    cli.fine("jobs", "run-now", id, "--by", "ada")
    cli.fine("--by", "bob", "queues", "pause", "default", "--why", "it moves")

    by_hand = [entry["by"] for entry in cli.fine("jobs", "history", id) if entry["what"] == "by hand"]
    assert by_hand == ["ada"]
    paused, hurried = cli.fine("interventions")
    assert (paused["subject"], paused["what"], paused["note"], paused["by"]) == (
        *("queue default", "paused", "it moves"),
        "bob",
    )
    assert (hurried["job_id"], hurried["what"], hurried["by"]) == (int(id), "run now", "ada")
    assert cli.fine("interventions", "--of", "queue default") == [paused]


def test_a_name_that_nobody_has_is_refused_and_changes_nothing(cli: CommandLine):
    id = enqueued(cli, "--delay", "1h")

    answer = cli("jobs", "cancel", id, "--by", "")

    assert answer.code == 2
    assert "The name of who acts is " in answer.error
    assert cli.fine("jobs", "show", id)["state"] == "scheduled"

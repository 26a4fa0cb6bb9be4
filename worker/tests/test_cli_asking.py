"""What cannot be undone is asked for at a terminal, said with --yes elsewhere, and tried with --dry-run."""

import textwrap
from pathlib import Path

import pytest

from tests.command_line import CommandLine, migrated
from tests.terminal import at_a_terminal


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


@pytest.fixture
def jobs(cli: CommandLine) -> CommandLine:
    """Queue mail with 1,200 pending jobs and a scheduled one."""
    cli.fine("queues", "set", "mail")
    cli.fine("enqueue", "send", "--queue", "mail", "--count", "1200")
    cli.fine("enqueue", "send", "--queue", "mail", "--delay", "1h")
    return cli


def pending(cli: CommandLine) -> int:
    return sum(queue["pending"] for queue in cli.fine("stats")["queues"])


def test_a_dry_run_counts_and_changes_nothing(jobs: CommandLine):
    assert jobs.fine("jobs", "cancel", "--all", "--dry-run", "--queue", "mail") == {
        "dry_run": True,
        "jobs": 1201,
        "states": {"scheduled": 1, "pending": 1200},
    }
    assert jobs("jobs", "delete", "--all", "--state", "pending", "--dry-run", "--kind", "send").out == (
        "1,200 pending jobs of kind send would be deleted. Nothing was changed.\n"
    )
    assert (
        jobs("jobs", "retry", "--all", "--dry-run").out == "No jobs would be retried. Nothing was changed.\n"
    )
    assert pending(jobs) == 1200


def test_at_a_terminal_the_count_is_asked_about_and_yes_does_it(jobs: CommandLine):
    session = at_a_terminal(
        jobs, "jobs", "cancel", "--all", "--queue", "mail", "--state", "pending", answer="y\n"
    )

    assert "Cancel 1,200 pending jobs of queue mail? [y/N]" in session.seen
    assert (session.code, session.out) == (0, "1,200 jobs were cancelled.\n")
    assert pending(jobs) == 0


def test_a_retry_of_all_is_asked_about_too(cli: CommandLine):
    cli.fine("enqueue", "send", "--count", "3")
    cli.fine("jobs", "cancel", "--all", "--yes")  # dead

    refused = at_a_terminal(cli, "jobs", "retry", "--all", answer="n\n")
    assert "Retry 3 dead jobs? [y/N]" in refused.seen
    assert (refused.code, pending(cli)) == (1, 0)

    agreed = at_a_terminal(cli, "jobs", "retry", "--all", answer="y\n")
    assert (agreed.code, agreed.out, pending(cli)) == (0, "3 jobs were retried.\n", 3)


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("\n", 1), ("\x03", 130), ("\x04", 130)])
def test_any_other_answer_changes_nothing(jobs: CommandLine, answer: str, code: int):
    session = at_a_terminal(jobs, "jobs", "delete", "--all", "--state", "pending", answer=answer)

    assert (session.code, session.out) == (code, "")
    assert "Traceback" not in session.seen
    assert ("Nothing was changed." in session.seen) == (code == 1)
    assert pending(jobs) == 1200


@pytest.mark.parametrize("options", [["--yes"], ["--dry-run"]])
def test_nothing_is_asked_when_all_is_said(jobs: CommandLine, options: list[str]):
    session = at_a_terminal(jobs, "jobs", "cancel", "--all", *options)

    assert (session.code, "[y/N]" in session.seen) == (0, False)


def test_a_program_that_wants_json_is_never_asked(jobs: CommandLine):
    session = at_a_terminal(jobs, "jobs", "cancel", "--all", "--json")

    assert (session.code, session.out) == (2, "")
    assert '{"error": "forge-jobs jobs cancel --all cannot be undone' in session.seen


def test_nothing_to_do_is_nothing_to_ask(cli: CommandLine):
    session = at_a_terminal(cli, "jobs", "cancel", "--all")

    assert (session.code, session.out) == (0, "0 jobs were cancelled.\n")
    assert "[y/N]" not in session.seen


def test_a_queue_is_deleted_when_it_is_unused(cli: CommandLine):
    cli.fine("queues", "set", "mail")

    assert cli.fine("queues", "delete", "mail") == {
        "name": "mail",
        "jobs": 0,
        "moved_to": None,
        "deleted": True,
    }
    assert [queue["name"] for queue in cli.fine("queues", "list")] == ["default"]


def test_a_queue_in_use_is_a_failure_that_says_what_to_do(jobs: CommandLine):
    for arguments in (["queues", "delete", "mail"], ["queues", "delete", "mail", "--dry-run"]):
        answer = jobs(*arguments)
        assert (answer.code, answer.out) == (1, "")
        assert answer.error == (
            "Queue 'mail' was not deleted: it has jobs (1 scheduled, 1,200 pending); "
            "say where to move them, or that they are dropped.\n"
        )


def test_the_jobs_of_a_queue_are_moved_with_its_crons(jobs: CommandLine):
    jobs.fine("cron", "set", "daily", "@daily", "--kind", "send", "--queue", "mail")

    assert jobs.fine("queues", "delete", "mail", "--move-to", "default", "--dry-run")["jobs"] == 1201
    assert jobs("queues", "delete", "mail", "--move-to", "default").out == (
        "Queue 'mail' is deleted; 1,201 jobs were moved to 'default'.\n"
    )
    assert {job["queue"] for job in jobs.fine("jobs", "list")} == {"default"}
    assert jobs.fine("cron", "list")[0]["queue"] == "default"


def test_to_drop_the_jobs_of_a_queue_is_asked_about(jobs: CommandLine):
    session = at_a_terminal(jobs, "queues", "delete", "mail", "--drop", answer="y\n")

    assert (
        "Delete queue mail and its crons, and with them 1,201 jobs (1 scheduled, 1,200 pending)"
        in session.seen
    )
    assert session.out == "Queue 'mail' is deleted; 1,201 jobs were deleted with it.\n"
    assert jobs.fine("jobs", "list") == []


PROGRAM = """
from forge_jobs import Forge
forge = Forge()

@forge.handler(queue="reports")
async def report() -> None: ...
"""


@pytest.fixture
def shop(cli: CommandLine) -> CommandLine:
    (cli.folder / "shop.py").write_text(textwrap.dedent(PROGRAM))
    cli.fine("queues", "set", "mail")
    return cli


def names(cli: CommandLine) -> list[str]:
    return [queue["name"] for queue in cli.fine("queues", "list")]


def test_a_misspelt_queue_is_asked_about_before_a_worker_makes_it(shop: CommandLine):
    session = at_a_terminal(shop, "worker", "shop:forge", "--queues", "mial", "--until-empty", answer="n\n")

    assert "There is no queue mial, but there is a queue mail. Make queue mial? [y/N]" in session.seen
    assert (session.code, "Queue 'mial' was not made; did you mean 'mail'?" in session.seen) == (2, True)
    assert names(shop) == ["default", "mail", "reports"]


def test_a_queue_that_is_meant_is_made_when_that_is_said(shop: CommandLine):
    session = at_a_terminal(shop, "worker", "shop:forge", "--queues", "mails", "--until-empty", answer="y\n")

    assert session.code == 0
    assert "mails" in names(shop)


def test_a_first_start_asks_nothing(shop: CommandLine):
    session = at_a_terminal(shop, "worker", "shop:forge", "--queues", "reports,thumbnails", "--until-empty")

    assert (session.code, "[y/N]" in session.seen) == (0, False)
    assert "There was no queue thumbnails, so it was made" in session.seen


def test_where_nobody_can_be_asked_a_misspelt_queue_is_warned_of(shop: CommandLine):
    answer = shop("worker", "shop:forge", "--queues", "mial", "--until-empty")

    assert answer.code == 0
    assert "WARNING There was no queue mial, so it was made; did you mean mail?" in answer.error

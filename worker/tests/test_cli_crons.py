"""What the command line says of groups of crons and of their jobs, and what it answers when a cron is triggered."""

from pathlib import Path

import pytest

from forge_jobs import Unique
from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_a_job_that_a_key_keeps_for_a_full_group_is_said_to_be_dead(cli: CommandLine):
    group = ("--group", "shop", "--overflow", "drop_newest")
    key = ("--key", "k", "--key-mode", "replace")
    cli.fine("enqueue", "k", "--group", "shop")
    cli.fine("cron", "set", "a", "@daily", "--kind", "k", *group, *key)

    assert cli("cron", "trigger", "a").lines == [
        "The group of the cron has no place for job 2, which is dead."
    ]
    assert cli("enqueue", "k", *group, *key).lines == [
        "3 (dropped: the group has no place for it, and it is dead)"
    ]


def test_a_cron_that_replaces_the_job_that_waits_says_so(cli: CommandLine):
    cli.fine("cron", "set", "a", "@daily", "--kind", "k", "--key", "k", "--key-mode", "replace")

    assert cli("cron", "trigger", "a").lines == ["Job 1 is enqueued."]
    assert cli("cron", "trigger", "a").lines == ["Job 1, which waits, is replaced; no other is enqueued."]


def test_a_cron_whose_job_is_unique_for_a_time_says_so_after_its_end(cli: CommandLine):
    cli.using(lambda forge: forge.crons.set("a", "@daily", "k", unique=Unique(within=3600)))
    cli.fine("cron", "trigger", "a")
    cli.fine("jobs", "cancel", "1")

    assert cli("cron", "trigger", "a").lines == [
        "Job 1 is enough for the time within which its jobs are unique; no other is enqueued."
    ]


@pytest.mark.parametrize("more", [("--group-limit", "5"), ("--overflow", "drop_newest")])
def test_of_no_group_there_is_nothing_more_to_say(cli: CommandLine, more: tuple[str, str]):
    said = "--group-limit or --overflow is given and --group is '', allowed is both."

    assert said in cli("cron", "set", "a", "@daily", "--kind", "k", "--group", "", *more).error
    assert said in cli("enqueue", "k", "--group", "", *more).error
    assert cli.fine("cron", "list") == []


def test_a_job_may_be_said_to_have_no_group(cli: CommandLine):
    assert cli.fine("enqueue", "k", "--group", "")["id"] == 1

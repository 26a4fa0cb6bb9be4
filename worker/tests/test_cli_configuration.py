"""Queues, crons, rate limits, workers and the tables themselves, by the command line."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec.json import encode

from forge_jobs import CronConfig, Forge, Kind
from forge_jobs.model.job import Hold
from forge_jobs.rules.cron_declarations import written
from tests.command_line import CommandLine, migrated
from tests.storage.factories import cron, worker


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_a_queue_is_configured_and_keeps_what_is_not_said(cli: CommandLine):
    cli.fine("queues", "set", "mail", "--concurrency", "3", "--backoff-base", "30s", "--backoff-max", "1h")
    cli.fine("queues", "set", "mail", "--max-attempts", "forever", "--done-retention", "1d", "--no-backoff")

    [_, mail] = cli.fine("queues", "list")

    assert {name: mail[name] for name in ("concurrency", "backoff_base_seconds", "backoff_max_seconds")} == {
        "concurrency": 3,
        "backoff_base_seconds": 30.0,
        "backoff_max_seconds": 3600.0,
    }
    assert (mail["max_attempts"], mail["done_retention_seconds"], mail["backoff_enabled"]) == (
        None,
        86400.0,
        False,
    )
    assert cli.fine("queues", "set", "mail", "--concurrency", "none")["concurrency"] is None


def test_a_queue_has_a_timeout_and_a_rate_limit(cli: CommandLine):
    cli.fine("limits", "set", "slack", "--capacity", "50", "--per", "1m")

    mail = cli.fine("queues", "set", "mail", "--timeout", "1m30s", "--rate-limit", "slack")
    assert (mail["timeout_seconds"], mail["rate_limit"]) == (90.0, "slack")
    assert "1 min 30 s" in cli("queues", "list").lines[2]
    assert "slack" in cli("queues", "list").lines[2]

    mail = cli.fine("queues", "set", "mail", "--timeout", "none", "--rate-limit", "none")
    assert (mail["timeout_seconds"], mail["rate_limit"]) == (None, None)


def test_a_queue_has_a_limit_for_groups_without_one(cli: CommandLine):
    assert cli.fine("queues", "set", "mail", "--group-limit", "4")["group_limit"] == 4
    assert cli.fine("queues", "set", "mail", "--group-limit", "none")["group_limit"] is None


def test_a_queue_lets_jobs_rise(cli: CommandLine):
    assert cli.fine("queues", "set", "mail", "--age-after", "10m")["age_after_seconds"] == 600.0
    assert "10 min" in cli("queues", "list").lines[2]
    assert cli.fine("queues", "set", "mail", "--age-after", "none")["age_after_seconds"] is None
    assert "never" in cli("queues", "list").lines[2]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--timeout", "0", "more than 0 s"),
        ("--age-after", "0", "1 s or more"),
        ("--timeout", "soon", "like 90s"),
        ("--rate-limit", "nix", "'nix'"),
        ("--group-limit", "0", "from 1 to 1,000, or none for 1"),
    ],
)
def test_a_timeout_or_limit_that_cannot_be_is_refused(cli: CommandLine, option: str, value: str, said: str):
    answer = cli("queues", "set", "default", option, value)

    assert (answer.code, len(answer.error.splitlines())) == (2, 1)
    assert said in answer.error


def test_queues_are_paused_and_resumed(cli: CommandLine):
    cli.fine("queues", "set", "mail")

    assert [queue["paused"] for queue in cli.fine("queues", "pause", "mail", "default")] == [True, True]
    assert "paused" in cli("queues", "list").out
    assert [queue["paused"] for queue in cli.fine("queues", "resume", "mail")] == [False]


def test_a_pause_may_end_by_itself(cli: CommandLine):
    [queue] = cli.fine("queues", "pause", "default", "--for", "2h", "--why", "the bank is closed")

    assert queue["paused_until"] is not None
    assert queue["pause_reason"] == "the bank is closed"
    assert "paused for 2 h" in cli("queues", "list").out
    assert (
        "Queue 'default' is paused until 2099-01-01 00:00:00 UTC."
        in cli("queues", "pause", "default", "--until", "2099-01-01").lines
    )


def test_a_pause_has_one_end(cli: CommandLine):
    said = cli("queues", "pause", "default", "--for", "2h", "--until", "2099-01-01")

    assert said.code == 2
    assert "--for and --until are both given, allowed is one of them." in said.error


def declared(cli: CommandLine, *kinds: str) -> None:
    cli.using(lambda forge: forge.storage.kinds.declare([Kind(kind) for kind in kinds], by="a test"))


def test_kinds_are_listed_paused_and_resumed(cli: CommandLine):
    declared(cli, "send", "fax")

    [paused] = cli.fine("kinds", "pause", "send", "--for", "2h", "--why", "the bank is closed")
    assert (paused["kind"], paused["reason"]) == ("send", "the bank is closed")

    fax, send = cli.fine("kinds", "list")
    assert (fax["paused"], send["paused"]["reason"]) == (None, "the bank is closed")
    assert "paused for 2 h" in cli("kinds", "list").out

    assert cli("kinds", "resume", "send", "fax").lines == [
        "Kind 'send' is resumed.",
        "Kind 'fax' was not paused.",
    ]
    assert cli.fine("kinds", "forget", "fax") == {"kind": "fax", "forgotten": True}


def test_one_unknown_kind_keeps_all_from_being_paused(cli: CommandLine):
    declared(cli, "send", "fax")

    answer = cli("kinds", "pause", "send", "sned")

    assert answer.code == 2
    assert "There is no kind 'sned'; kinds: fax, send." in answer.error
    assert [kind["paused"] for kind in cli.fine("kinds", "list")] == [None, None]


def test_one_unknown_queue_keeps_all_from_being_paused(cli: CommandLine):
    assert cli("queues", "pause", "default", "nix").code == 2
    assert not cli.fine("queues", "list")[0]["paused"]


def test_a_job_of_a_paused_queue_says_so(cli: CommandLine):
    id = cli.fine("enqueue", "send")["id"]
    cli.fine("queues", "pause", "default")

    assert "Queue 'default' is paused." in cli("jobs", "why", str(id)).lines


def test_a_cron_is_set_triggered_disabled_enabled_and_deleted(cli: CommandLine):
    cli.fine("queues", "set", "mail")
    made = cli.fine(
        *("cron", "set", "nightly", "0 3 * * *", "--kind", "clean_up", "--timezone", "Europe/Berlin"),
        *("--payload", '{"deep": true}', "--queue", "mail", "--priority", "7", "--max-attempts", "2"),
        *("--timeout", "10m", "--no-overlap", "--missed", "all", "--missed-limit", "3"),
    )

    assert made["payload"] == {"deep": True}
    assert (made["missed"], made["missed_limit"], made["overlap"], made["enabled"]) == ("all", 3, False, True)
    assert (made["queue"], made["priority"], made["max_attempts"], made["timeout_seconds"]) == (
        "mail",
        7,
        2,
        600.0,
    )
    job = cli.fine("jobs", "show", str(cli.fine("cron", "trigger", "nightly")["id"]))
    assert (job["kind"], job["queue"], job["payload"], job["priority"]) == (
        "clean_up",
        "mail",
        {"deep": True},
        7,
    )
    assert cli.fine("cron", "disable", "nightly")["enabled"] is False
    assert "disabled" in cli("cron", "list").out
    assert cli.fine("cron", "enable", "nightly")["enabled"] is True
    assert cli.fine("cron", "delete", "nightly") == {"name": "nightly", "deleted": True}
    assert cli.fine("cron", "list") == []


def test_a_cron_whose_job_has_not_ended_is_not_said_to_be_triggered(cli: CommandLine):
    cli.fine("cron", "set", "nightly", "0 3 * * *", "--kind", "clean_up", "--no-overlap")
    first = cli.fine("cron", "trigger", "nightly")

    assert cli("cron", "trigger", "nightly").lines == [
        f"Job {first['id']} has not ended; no other is enqueued."
    ]
    again = cli.fine("cron", "trigger", "nightly")
    assert (again["id"], again["duplicate"], again["is_new"]) == (first["id"], True, False)


def test_a_cron_has_the_group_or_the_tenant_that_is_said(cli: CommandLine):
    group = ("--group", "shop", "--group-limit", "2", "--overflow", "drop_newest")
    cli.fine("cron", "set", "a", "@daily", "--kind", "k", *group)
    cli.fine("cron", "set", "b", "@daily", "--kind", "k", "--tenant", "ada")
    cli.fine("cron", "set", "c", "@daily", "--kind", "k", "--group", "", "--tenant", "", "--key", "")

    shown = [(cron["groups"], cron["tenant"]) for cron in cli.fine("cron", "list")]
    said = {"name": "shop", "limit": 2, "overflow": "drop_newest"}
    assert shown == [([said], None), ([], "ada"), ([], None)]

    [first, _, third] = [cli("cron", "trigger", "a").lines[0] for _ in range(3)]
    assert first == "Job 1 is enqueued."
    assert third == "The group of the cron has no place, job 1 has it; no other is enqueued."


def test_a_table_of_crons_shows_what_their_jobs_belong_to_where_one_says_that(cli: CommandLine):
    async def unique(forge: Forge) -> None:
        hold = encode(Hold(b"all", timedelta(hours=2))).decode()
        await forge.storage.crons.set(CronConfig("c", "@daily", "k", hold=hold))

    cli.fine("cron", "set", "a", "@daily", "--kind", "k", "--group", "shop")
    assert "group" in cli("cron", "list").lines[0]
    assert "tenant" not in cli("cron", "list").lines[0]
    assert "unique" not in cli("cron", "list").lines[0]

    cli.fine("cron", "set", "b", "@daily", "--kind", "k", "--tenant", "ada")
    cli.using(unique)

    header, *rows = cli("cron", "list").lines
    cells = [header.index(name) for name in ("group", "tenant", "unique", "from")]
    shown = [[row[begin:end].strip() for begin, end in pairwise(cells)] for row in rows]
    assert shown == [["shop", "", ""], ["", "ada", ""], ["", "", "for 2 h"]]


def test_a_cron_that_says_nothing_of_attempts_leaves_them_to_its_queue(cli: CommandLine):
    cli.fine("cron", "set", "hourly", "@hourly", "--kind", "k")

    assert cli.fine("cron", "list")[0]["max_attempts"] is None
    assert (
        cli.fine("cron", "set", "hourly", "@hourly", "--kind", "k", "--max-attempts", "forever")[
            "max_attempts"
        ]
        == "forever"
    )


def test_a_cron_that_never_fires_is_refused(cli: CommandLine):
    answer = cli("cron", "set", "never", "0 0 30 2 *", "--kind", "k")

    assert answer.code == 2
    assert len(answer.error.splitlines()) == 1


def test_a_list_of_crons_says_when_each_fires_next_though_no_worker_ever_ran(cli: CommandLine):
    cli.fine("cron", "set", "minutely", "* * * * *", "--kind", "k")

    assert " in " in cli("cron", "list").lines[1]


def test_a_rate_limit_is_set_emptied_and_deleted(cli: CommandLine):
    made = cli.fine("limits", "set", "slack", "--capacity", "50", "--per", "1m")

    assert (made["capacity"], made["tokens"]) == (50.0, 50.0)
    assert made["refill"] == pytest.approx(50 / 60)
    assert cli.fine("limits", "empty", "slack") == {"scope": "slack", "emptied": True}
    assert cli.fine("limits", "list")[0]["tokens"] < 50
    assert cli.fine("limits", "set", "slack", "--capacity", "5", "--refill", "0.5")["refill"] == 0.5
    assert cli.fine("limits", "delete", "slack") == {"scope": "slack", "deleted": True}
    assert cli("limits", "list").out == "No rate limits.\n"


def test_a_key_of_a_rate_limit_is_made_full_again(cli: CommandLine):
    cli.fine("limits", "set", "slack", "--capacity", "5", "--per", "1h")
    cli.using(lambda forge: forge.limits.reserve("slack", "ann", 3))

    answer = cli("limits", "reset", "slack", "ann")
    assert answer.lines == ["Key 'ann' of rate limit 'slack' is full again."]
    assert cli("limits", "keys", "slack").lines == ["No key is in use."]
    assert cli.fine("limits", "reset", "slack", "ann") == {"scope": "slack", "key": "ann", "reset": False}
    assert cli("limits", "reset", "slack", "anna").lines == [
        "Key 'anna' of rate limit 'slack' was full: nothing of it is spent."
    ]
    refused = cli("limits", "reset", "slick", "ann")
    assert (refused.code, len(refused.error.splitlines())) == (2, 1)


def test_workers_are_swept_and_given_up(cli: CommandLine):
    numbers = [cli.using(lambda forge: worker(forge.storage, label="shop-worker-1-a")) for _ in range(2)]

    assert cli("workers", "sweep", "--dry-run").lines == ["No worker is lost."]
    said = cli("workers", "give-up", "shop-worker-1-a", "--dry-run")
    assert said.lines[0].startswith("shop-worker-1-a would be taken for lost, heard from ")
    assert said.lines[0].endswith(" ago: it has no jobs.")
    given_up = cli.fine("workers", "give-up", *map(str, numbers))
    assert [one["id"] for one in given_up] == numbers
    assert cli.fine("workers", "list") == []
    refused = cli("workers", "sweep", "--stale", "1s")
    assert (refused.code, "--stale is '1s', allowed is 15 s or more." in refused.error) == (2, True)


def test_without_workers_none_are_listed(cli: CommandLine):
    assert cli.fine("workers", "list") == []
    assert cli("workers", "list").out == "No workers.\n"


def test_stats_count_each_queue(cli: CommandLine):
    cli.fine("queues", "set", "mail", "--concurrency", "3")
    cli.fine("enqueue", "send", "--queue", "mail", "--count", "3")
    cli.fine("enqueue", "send", "--queue", "mail", "--delay", "1h")

    [default, mail] = cli.fine("stats")["queues"]

    assert (default["pending"], mail["pending"], mail["scheduled"], mail["dead"]) == (0, 3, 1, 0)
    assert cli("stats").lines[2].split()[:3] == ["mail", "active", "3"]


def test_the_tables_are_made_looked_at_reset_and_dropped(cli: CommandLine):
    assert cli.fine("db", "status")["up_to_date"] is True
    assert cli.fine("db", "migrate")["applied"] == 0
    cli.fine("enqueue", "send")

    assert cli.fine("db", "reset", "--force")["up_to_date"] is True
    assert cli.fine("jobs", "list") == []
    assert cli.fine("db", "drop", "--force")["dropped"] is True
    assert cli.fine("db", "status")["found"] == 0
    assert cli("jobs", "list").code == 1
    assert cli.fine("db", "migrate")["applied"] == cli.fine("db", "status")["known"]


def test_contradictions_are_found_said_and_mended(cli: CommandLine):
    id = cli.fine("enqueue", "send", "--key", "k")["id"]
    assert cli.fine("db", "check") == {"jobs": 1, "found": 0, "mended": 0, "findings": []}
    assert cli("db", "check").out == "1 job looked at; nothing is wrong.\n"
    with closing(sqlite3.connect(cli.folder / "queue.sqlite")) as connection, connection:
        connection.execute("DELETE FROM ready")
        connection.execute("DELETE FROM job_key")

    found = cli("db", "check", "--json")
    assert found.code == 1
    assert [(each["fault"], each["job_id"], each["mended"]) for each in found.document["findings"]] == [
        ("place", id, None),
        ("key", id, None),
        ("count", None, None),
    ]
    assert found.error == (
        '{"error": "3 contradictions in the database; to mend them: forge-jobs db check --repair."}\n'
    )

    repaired = cli("db", "check", "--repair")
    assert (repaired.code, repaired.error) == (0, "")
    assert f"Job {id} does not hold its key 'k' of kind send. It holds its key." in repaired.lines
    assert repaired.lines[-1] == "1 job looked at; 3 contradictions mended."
    assert cli.fine("db", "check")["found"] == 0
    again = cli.fine("enqueue", "send", "--key", "k")
    assert (again["id"], again["duplicate"], again["is_new"]) == (id, True, False)


def test_jobs_in_no_state_may_be_forgotten(cli: CommandLine):
    cli.fine("enqueue", "send", "--count", "3")
    with closing(sqlite3.connect(cli.folder / "queue.sqlite")) as connection, connection:
        connection.execute("DELETE FROM ready")

    assert "pass --repair too" in cli("db", "check", "--delete-stateless").error
    assert cli.fine("db", "check", "--repair", "--delete-stateless")["mended"] == 4
    assert cli.fine("jobs", "list") == []


def test_create_makes_the_file_and_its_folder(cli: CommandLine):
    url = f"sqlite:///{cli.folder}/deep/down/other.sqlite"

    assert cli.fine("db", "create", "--database-url", url)["created"] is True
    assert cli.fine("db", "status", "--database-url", url)["found"] == 0


def test_a_newer_database_is_refused(cli: CommandLine):
    with closing(sqlite3.connect(cli.folder / "queue.sqlite")) as connection, connection:
        connection.execute("INSERT INTO migration (number, name, applied_at) VALUES (99, 'of_tomorrow', 0)")

    answer = cli("jobs", "list")

    assert (answer.code, answer.out) == (1, "")
    assert "is at migration 99" in answer.error
    assert cli("db", "migrate").code == 1
    assert cli.fine("db", "status")["up_to_date"] is False


def test_the_version_is_said(cli: CommandLine):
    assert cli("--version").out == f"forge-jobs {version('forge-jobs')}\n"


def test_without_a_command_the_help_is_shown(cli: CommandLine):
    answer = cli()

    assert answer.code == 2
    assert "Commands:" in answer.out


def test_what_an_owner_managed_that_is_gone_is_taken_back(cli: CommandLine):
    cli.using(_managed)
    refused = cli("queues", "pause", "mail")
    assert refused.error == "Queue 'mail' is managed by ForgeQueue shop/mail; change it there.\n"

    listed = cli("owners", "list").lines
    assert [line.split() for line in listed] == [
        ["owner", "queues", "rate", "limits", "crons"],
        ["ForgeQueue", "shop/mail", "letters,mail", "slack"],
    ]
    assert cli.fine("owners", "list") == [
        {
            "name": "ForgeQueue shop/mail",
            "queues": ["letters", "mail"],
            "limits": ["slack"],
            "crons": [],
        }
    ]
    said = cli("owners", "dismiss", "ForgeQueue shop/mail")
    assert said.out == "Nobody manages letters, mail, slack any more.\n"
    assert cli("queues", "pause", "mail").code == 0

    again = cli("owners", "dismiss", "ForgeQueue shop/mail")
    assert (again.code, again.error) == (2, "'ForgeQueue shop/mail' manages nothing; owners: none.\n")
    assert cli("owners", "list").out == "Nobody manages anything.\n"
    assert cli("owners", "dismiss", "").code == 2


async def _managed(forge: Forge) -> None:
    for name in ("mail", "letters"):
        await forge.queues.set(name, managed_by="ForgeQueue shop/mail")
    await forge.limits.set("slack", 1, refill=1, managed_by="ForgeQueue shop/mail")


def test_a_database_named_on_the_command_line_wins_over_a_file_with_another(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_DATABASE_URL_FILE", "/nowhere")

    assert "FORGE_DATABASE_URL_FILE is '/nowhere'" in cli("db", "status").error
    assert cli.fine("--database-url", cli.url, "db", "status")["up_to_date"] is True


async def _declare(url: str) -> None:
    async with Forge(url) as forge:
        await worker(forge.storage, crons={"code": "x", "changed": "x"})
        for name in ("code", "changed", "gone"):
            config = cron(name)
            declared = replace(config, declared=written(config))
            await forge.storage.crons.declare(declared, last_declared=None)


def test_the_list_of_crons_says_where_each_comes_from(cli: CommandLine):
    asyncio.run(_declare(cli.url))
    cli.fine("cron", "set", "changed", "@hourly", "--kind", "report")
    cli.fine("cron", "set", "people", "@hourly", "--kind", "report")
    (cli.folder / "shop.cron").write_text("@daily report ?id=file\n")
    cli.fine("cron", "load", "shop.cron")

    assert {entry["name"]: entry["from"] for entry in cli.fine("cron", "list")} == {
        "code": "code",
        "changed": "code, changed since",
        "gone": "code of no live worker",
        "people": "people",
        "file": "crontab:shop.cron",
    }
    for origin in ("code, changed since", "crontab:shop.cron"):
        assert origin in cli("cron", "list").out

    refused = cli("cron", "delete", "code")
    assert refused.code != 0 and "managed by the code of a worker" in refused.error
    assert cli("cron", "delete", "gone").code == 0

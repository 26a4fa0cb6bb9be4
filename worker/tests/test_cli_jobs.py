"""Jobs by the command line, from enqueue to the end."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forge_jobs import Context, Forge, Worker
from forge_jobs.cli import progress
from forge_jobs.cli.bulk import bulk_report
from forge_jobs.client.operations import Bulk
from forge_jobs.model.kind import Kind
from tests.command_line import CommandLine, migrated


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_a_job_is_managed_from_enqueue_to_deletion(cli: CommandLine):
    id = cli.fine("enqueue", "send", '{"to": "ada"}', "--delay", "1h", "--max-attempts", "3")["id"]
    text = str(id)

    assert [job["id"] for job in cli.fine("jobs", "list")] == [id]
    assert cli.fine("jobs", "show", text)["payload"] == {"to": "ada"}
    assert cli.fine("jobs", "why", text)["reasons"][0].startswith("Its first attempt waits until")
    assert cli.fine("jobs", "run-now", text) == [{"id": id, "result": "pending"}]
    assert cli.fine("jobs", "show", text)["state"] == "pending"
    assert cli.fine("jobs", "cancel", text) == [{"id": id, "result": "dead"}]
    assert cli.fine("jobs", "show", text)["error"] == "cancelled by user"
    assert cli.fine("jobs", "retry", text) == [{"id": id, "result": "pending"}]
    assert cli.fine("stats")["queues"][0]["pending"] == 1
    assert cli.fine("jobs", "delete", text) == [{"id": id, "result": "deleted"}]
    assert cli.fine("jobs", "list") == []


def test_every_option_of_enqueue_reaches_the_job(cli: CommandLine):
    cli.fine("queues", "set", "mail")

    id = cli.fine(
        *("enqueue", "send", "--queue", "mail", "--run-at", "2040-01-31T08:00:00+02:00", "--priority", "-5"),
        *("--max-attempts", "forever", "--timeout", "90s", "--key", "welcome:42"),
    )["id"]

    job = cli.fine("jobs", "show", str(id))
    assert job["state"] == "scheduled"
    assert datetime.fromisoformat(job["run_at"]) == datetime(2040, 1, 31, 6, tzinfo=UTC)
    assert {name: job[name] for name in ("queue", "priority", "max_attempts", "timeout_seconds", "key")} == {
        "queue": "mail",
        "priority": -5,
        "max_attempts": None,
        "timeout_seconds": 90.0,
        "key": "welcome:42",
    }


def test_a_delay_counts_from_now(cli: CommandLine):
    job = cli.fine("jobs", "show", str(cli.fine("enqueue", "send", "--delay", "5m")["id"]))

    waits = datetime.fromisoformat(job["run_at"]) - datetime.fromisoformat(job["created_at"])
    assert waits == timedelta(minutes=5)


def test_enqueue_prints_the_id_alone(cli: CommandLine):
    assert cli("enqueue", "send").out.strip().isdecimal()


def test_a_duplicate_is_the_job_that_is_there_and_said(cli: CommandLine):
    first = cli.fine("enqueue", "send", "--key", "k")
    second = cli.fine("enqueue", "send", "--key", "k")

    assert (first["is_new"], first["duplicate"]) == (True, False)
    assert second == {
        "id": first["id"],
        "duplicate": True,
        "replaced": False,
        "supersedes": None,
        "payload_differs": False,
        "dropped": False,
        "is_new": False,
    }
    assert "has not ended" in cli("enqueue", "send", "--key", "k").out


def test_a_job_is_replaced_and_removed_by_its_key(cli: CommandLine):
    first = cli.fine("enqueue", "send", '{"n": 1}', "--key", "k", "--delay", "1h")
    second = cli.fine("enqueue", "send", '{"n": 2}', "--key", "k", "--key-mode", "preserve_run_at")

    assert (second["id"], second["replaced"], second["payload_differs"]) == (first["id"], True, True)
    job = cli.fine("jobs", "show", str(first["id"]))
    assert (job["state"], job["payload"]) == ("scheduled", {"n": 2})
    assert "and replaced" in cli("enqueue", "send", "--key", "k", "--key-mode", "replace").out
    assert cli.fine("jobs", "remove", "send", "k") == {"kind": "send", "key": "k", "result": "deleted"}
    assert "has the key 'k'" in cli("jobs", "remove", "send", "k").error


def test_a_mode_needs_a_key_and_a_name_that_there_is(cli: CommandLine):
    assert "key_mode is given and key is not" in cli("enqueue", "send", "--key-mode", "replace").error
    assert "put_off" in cli("enqueue", "send", "--key", "k", "--key-mode", "put_off").error
    wrong = cli("enqueue", "send", "--key", "k", "--key-mode", "replac").error
    assert "'replac'" in wrong and "dedupe, replace, preserve_run_at" in wrong


def test_jobs_that_say_the_same_are_one(cli: CommandLine):
    same = ("enqueue", "report", '{"user": 7, "pages": 1}', "--unique-by", "user", "--unique-within", "1h")
    first = cli.fine(*same)

    assert (first["is_new"], cli.fine(*same)["id"]) == (True, first["id"])
    assert "one is enough for now" in cli(*same).out
    assert "on_conflict='raise'" in cli(*same, "--on-conflict", "raise").error
    later = cli.fine(
        *("enqueue", "index", '{"page": 1}', "--unique-by", "*", "--debounce", "5m", "--max-wait", "1h")
    )
    assert cli.fine("jobs", "show", str(later["id"]))["state"] == "scheduled"
    early = cli.fine(
        *("enqueue", "index", '{"page": 2}', "--unique-by", "*", "--debounce", "5m", "--edge", "leading")
    )
    assert cli.fine("jobs", "show", str(early["id"]))["state"] == "pending"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--unique-within", "1h"), "--unique-within is given and --unique-by is not"),
        (
            ("--unique-by", "usr"),
            "unique names the argument 'usr', which the payload of 'send' does not have",
        ),
        (("--unique-by", "*", "--on-conflict", "retrun"), "allowed is one of return, raise, replace"),
        (("--unique-by", "*", "--key", "k"), "key and unique are both given"),
        (("--edge", "leading"), "--edge is given and --unique-by is not"),
        (("--unique-by", "*", "--debounce", "5s", "--edge", "left"), "allowed is one of leading, trailing"),
        (("--unique-by", "*", "--max-wait", "5s"), "Unique.max_wait is given and debounce is not"),
    ],
)
def test_a_wrong_uniqueness_is_said(cli: CommandLine, words: tuple[str, ...], sentence: str):
    assert sentence in cli("enqueue", "send", "{}", *words).error


def test_many_jobs_are_enqueued_by_count(cli: CommandLine):
    made = cli.fine("enqueue", "send", "--count", "12000")

    assert made["enqueued"] == len(set(made["ids"])) == 12000
    assert cli.fine("stats")["queues"][0]["pending"] == 12000


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_the_payload_may_come_from_a_file(cli: CommandLine, source: str):
    (cli.folder / "payload.json").write_text('{"to": "åda"}', encoding="utf-8")

    with (cli.folder / "payload.json").open() as stdin:
        name = "payload.json" if source == "file" else "-"
        out, _ = cli.process("enqueue", "send", "--payload-file", name, stdin=stdin).communicate(timeout=30)

    assert cli.fine("jobs", "show", out.strip())["payload"] == {"to": "åda"}


def test_jobs_are_listed_newest_first_and_by_page_and_filter(cli: CommandLine):
    cli.fine("queues", "set", "mail")
    ids = [
        cli.fine("enqueue", kind, "--queue", queue)["id"]
        for kind, queue in [("a", "mail"), ("b", "mail"), ("a", "default")]
    ]
    listed = lambda *options: [job["id"] for job in cli.fine("jobs", "list", *options)]  # noqa: E731

    assert listed() == ids[::-1]
    assert listed("--limit", "2") == ids[:0:-1]
    assert listed("--before", str(ids[1])) == ids[:1]
    assert listed("--queue", "mail", "--kind", "a") == ids[:1]
    assert listed("--state", "dead") == []


def test_jobs_are_cancelled_retried_and_deleted_by_filter(cli: CommandLine):
    cli.fine("queues", "set", "mail")
    cli.fine("enqueue", "send", "--queue", "mail", "--count", "700")
    cli.fine("enqueue", "send", "--queue", "mail", "--delay", "1h")
    other = cli.fine("enqueue", "send")["id"]

    assert cli.fine("jobs", "cancel", "--all", "--yes", "--queue", "mail") == {
        "cancelled": 701,
        "running": 0,
        "skipped": 0,
        "locked": 0,
    }
    assert cli.fine("jobs", "retry", "--all", "--yes", "--kind", "send") == {
        "retried": 701,
        "skipped": 0,
        "locked": 0,
    }
    assert (
        cli.fine("jobs", "cancel", "--all", "--yes", "--queue", "mail", "--state", "pending")["cancelled"]
        == 701
    )
    assert cli.fine("jobs", "delete", "--all", "--yes", "--state", "dead") == {
        "deleted": 701,
        "skipped": 0,
        "locked": 0,
    }
    assert [job["id"] for job in cli.fine("jobs", "list")] == [other]


def test_a_program_is_told_how_far_a_long_command_is(cli: CommandLine, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    cli.fine("enqueue", "send", "--count", "2500")

    answer = cli("jobs", "cancel", "--all", "--yes", "--json")

    assert answer.document == {"cancelled": 2500, "running": 0, "skipped": 0, "locked": 0}
    assert [json.loads(line) for line in answer.error.splitlines()] == [
        {"progress": {"cancelled": cancelled, "running": 0, "skipped": 0, "locked": 0}}
        for cancelled in (1000, 2000, 2500)
    ]


def test_people_see_on_a_terminal_how_far_a_long_command_is(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    cli.fine("enqueue", "send", "--count", "2500")
    monkeypatch.setenv("FORCE_COLOR", "1")  # what makes anything a terminal

    answer = cli("jobs", "delete", "--all", "--yes", "--state", "pending")

    assert "2,500 jobs were deleted." in answer.out
    assert "jobs were deleted" in answer.error
    assert "jobs were deleted" not in cli("jobs", "list").error


def test_a_job_is_waited_for_and_its_result_printed(cli: CommandLine):
    done, dead = cli.using(_ended)

    assert cli("jobs", "wait", str(done)).out == '{"to": "ada"}\n'
    assert cli.fine("jobs", "wait", str(done)) == {"id": done, "state": "done", "result": {"to": "ada"}}
    failed = cli("jobs", "wait", str(dead))
    assert (failed.code, failed.out) == (1, "")
    assert failed.error.startswith(f"Job {dead} is dead: ")

    waiting = cli.fine("enqueue", "echo", "--delay", "1h")["id"]
    late = cli("jobs", "wait", str(waiting), "--timeout", "0.01")
    assert late.code == 1
    assert late.error.startswith(f"Job {waiting} did not end within 0.01 s: its first attempt waits until ")
    assert cli("jobs", "wait", "4711").code == 1


def test_the_steps_of_a_job_are_shown_and_it_is_run_again_from_one(cli: CommandLine):
    async def work(forge: Forge) -> None:
        @forge.handler(kind="send")
        async def send(ctx: Context) -> None:
            await ctx.step("charge", lambda: {"receipt": 7})
            await ctx.sleep(0, "cool off")
            if await ctx.patched("taxes"):
                await ctx.step("mail", lambda: None)
            raise ConnectionError("the other side is gone")

        await Worker(forge, queues=["default"]).run(until_empty=True)

    id = cli.fine("enqueue", "send", "--max-attempts", "1")["id"]
    assert cli.fine("jobs", "show", str(id))["steps"] == []
    cli.using(work)

    charge, sleep, patch, mail = cli.fine("jobs", "show", str(id))["steps"]
    assert {
        name: charge[name] for name in ("number", "name", "sort", "attempt", "result", "until", "is_over")
    } == {
        "number": 1,
        "name": "charge",
        "sort": "step",
        "attempt": 1,
        "result": {"receipt": 7},
        "until": None,
        "is_over": True,
    }
    assert (sleep["sort"], sleep["until"], sleep["is_over"]) == ("sleep", sleep["at"], True)
    assert (patch["sort"], patch["number"], mail["number"]) == ("patch", 3, 3)
    shown = cli("jobs", "show", str(id)).out
    assert '{"receipt": 7}' in shown and "slept until" in shown and "patched" in shown
    assert "It has done 3 steps, at last 'mail'" in cli("jobs", "why", str(id)).out
    anew = cli.fine("jobs", "rerun", str(id), "--from-step", "mail")["id"]
    assert [step["name"] for step in cli.fine("jobs", "show", str(anew))["steps"]] == ["charge", "cool off"]
    refused = cli("jobs", "rerun", str(id), "--from-step", "post")
    assert refused.error.strip() == (
        f"Job {id} has not done a step 'post'; steps that it has done: 'charge', 'cool off', 'mail'."
    )


def test_how_far_a_job_is_is_listed_shown_and_watched(cli: CommandLine):
    async def report(forge: Forge) -> None:
        @forge.handler(kind="send")
        async def send(ctx: Context) -> str:
            await ctx.progress(0.4, "4 of 10 letters")
            return "sent"

        await Worker(forge, queues=["default"]).run(until_empty=True)

    id = cli.fine("enqueue", "send")["id"]
    assert cli.fine("jobs", "show", str(id))["progress"] is None
    cli.using(report)

    shown = cli.fine("jobs", "show", str(id))["progress"]
    assert (shown["share"], shown["note"], shown["attempt"]) == (0.4, "4 of 10 letters", 1)
    assert "40% 4 of 10 letters" in cli("jobs", "list").out
    assert "40% 4 of 10 letters (attempt 1, " in cli("jobs", "show", str(id)).out
    assert cli("jobs", "watch", str(id)).lines == ['"sent"']


def test_what_attempts_came_to_is_shown_since_a_time(cli: CommandLine):
    async def work(forge: Forge) -> None:
        @forge.handler
        async def send() -> None: ...

        await send.enqueue_many([{}] * 3)
        await Worker(forge, queues=["default"]).run(until_empty=True)

    assert cli("stats", "--since", "1h").out == "No attempt ended in this time.\n"
    cli.using(work)

    document = cli.fine("stats", "--since", "1h")
    assert (document["since_seconds"], document["every_seconds"]) == (3600.0, None)
    [send] = document["kinds"]
    assert (send["queue"], send["kind"], send["outcomes"]) == ("default", "send", {"done": 3})
    assert send["run"]["count"] == 3 and send["wait"]["p99_seconds"] > 0
    heads, row = cli("stats", "--since", "1h").lines
    assert heads.split()[:3] == ["queue", "kind", "done"] and row.split()[:3] == ["default", "send", "3"]
    assert cli("stats", "--since", "1h", "--every", "5m").lines[0].startswith("at ")
    assert cli.fine("stats", "--since", "1h", "--kind", "bill")["kinds"] == []


def test_filters_of_statistics_need_a_time(cli: CommandLine):
    answer = cli("stats", "--queue", "mail")
    assert (answer.code, "go with --since" in answer.error) == (2, True)


def test_a_job_that_dies_while_it_is_watched_fails_the_command(cli: CommandLine):
    id = cli.fine("enqueue", "send")["id"]
    cli.fine("jobs", "cancel", str(id))

    answer = cli("jobs", "watch", str(id))

    assert answer.code == 1 and "cancelled by user" in answer.error


def test_enqueue_waits_for_its_job_when_told_so(cli: CommandLine):
    late = cli("enqueue", "send", "--wait", "0.01")
    assert (late.code, late.out) == (1, "")
    assert late.error.endswith("did not end within 0.01 s: no live worker serves queue 'default'.\n")
    assert cli.fine("stats")["queues"][0]["pending"] == 1

    refused = cli("enqueue", "send", "--wait", "1s", "--count", "2")
    assert (refused.code, refused.error) == (2, "--wait works with one job only, but --count is 2.\n")
    assert cli.fine("stats")["queues"][0]["pending"] == 1


async def _ended(forge: Forge) -> tuple[int, int]:
    @forge.handler
    async def echo(to: str) -> dict[str, str]:
        return {"to": to}

    @forge.handler(max_attempts=1)
    async def breaks() -> None:
        raise ValueError("no")

    jobs = await echo.enqueue(to="ada"), await breaks.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)
    return jobs[0].id, jobs[1].id


def test_a_retry_is_refused_while_another_job_has_the_key(cli: CommandLine):
    old = str(cli.fine("enqueue", "send", "--key", "k")["id"])
    cli.fine("jobs", "cancel", old)
    cli.fine("enqueue", "send", "--key", "k")

    answer = cli("jobs", "retry", old)

    assert answer.code == 1
    assert "another job with its key has not ended" in answer.error
    assert cli.fine("jobs", "retry", "--all", "--yes") == {"retried": 0, "skipped": 1, "locked": 0}
    assert cli("jobs", "retry", "--all", "--yes").out == (
        "0 jobs were retried; 1 could not be: another job with their key has not ended.\n"
    )


def test_show_tells_the_errors_of_all_attempts(cli: CommandLine):
    forge = Forge(cli.url)

    @forge.handler(max_attempts=2)
    async def stumble() -> None:
        raise ValueError("no address")

    async def work(forge_of_test: Forge) -> int:
        from forge_jobs.testing import run_due_jobs

        await forge_of_test.queues.set("default", backoff_enabled=False)
        async with forge:
            id = (await stumble.enqueue()).id
            await run_due_jobs(forge)
            return id

    id = str(cli.using(work))

    shown = cli.fine("jobs", "show", id)
    assert shown["state"] == "dead"
    assert [failure["attempt"] for failure in shown["failures"]] == [1, 2]
    assert "no address" in shown["error"]
    assert "no address" in cli("jobs", "show", id).out
    assert "Its error was: ValueError: no address" in cli("jobs", "why", id).out


def test_a_table_is_columns_that_line_up_without_colour(cli: CommandLine):
    cli.fine("enqueue", "send")
    cli.fine(
        "enqueue", "a_kind_with_a_very_long_name_that_would_not_fit_into_a_narrow_terminal_at_all_" + "x" * 40
    )

    lines = cli("jobs", "list").lines

    assert lines[0].split()[:4] == ["id", "state", "kind", "queue"]
    assert all(line[lines[0].index("state") :].startswith("pending") for line in lines[1:])
    assert "\x1b" not in "".join(lines)


def test_a_global_option_may_stand_before_or_after_the_command(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("FORGE_DATABASE_URL")

    for arguments in (
        ["--json", "--database-url", cli.url, "jobs", "list"],
        ["jobs", "list", "--database-url", cli.url, "--json"],
    ):
        answer = cli(*arguments)
        assert (answer.code, json.loads(answer.out)) == (0, [])


def test_jobs_that_stay_locked_are_told_of_and_the_command_has_failed():
    report = bulk_report("cancelled", Bulk(2499, locked=1))

    assert report.document == {"cancelled": 2499, "running": 0, "skipped": 0, "locked": 1}
    assert report.parts == ["2,499 jobs were cancelled."]
    assert report.errors == [
        "1 job was not cancelled: another transaction keeps it locked; run the command again."
    ]


def test_groups_are_said_looked_at_and_set(cli: CommandLine):
    first, second = (
        cli.fine("enqueue", "send", "--group", "a", "--group-limit", "1")["id"] for _ in range(2)
    )

    assert cli.fine("jobs", "show", str(second))["state"] == "blocked"
    assert cli.fine("jobs", "why", str(second))["reasons"] == [
        f"Its group 'a' runs 1 at a time: job {first} has the place and is pending."
    ]
    assert cli.fine("groups", "list") == [
        {
            "name": "a",
            "limit": 1,
            "set_limit": None,
            "occupants": 1,
            "blocked": 1,
            "paused": False,
            "paused_until": None,
            "pause_reason": None,
        }
    ]
    assert cli.fine("groups", "set", "a", "--limit", "2")["occupants"] == 2
    assert cli.fine("groups", "show", "a")["set_limit"] == 2
    assert cli.fine("groups", "unset", "a")["limit"] == 1
    dropped = cli.fine("enqueue", "send", "--group", "a", "--overflow", "drop_newest")
    assert (dropped["id"], dropped["dropped"]) == (first, True)
    assert cli.fine("stats")["queues"][0]["blocked"] == 0


def test_tenants_are_said_looked_at_and_weighed(cli: CommandLine):
    first = cli.fine("enqueue", "send", "--tenant", "ada", "--count", "3")["ids"][0]

    assert cli.fine("jobs", "show", str(first))["tenant"] == "ada"
    assert "ada" in cli("jobs", "show", str(first)).out
    assert cli.fine("tenants", "list") == [{"queue": "default", "tenant": "ada", "weight": 1.0, "waiting": 3}]
    assert cli("tenants", "set", "ada", "--weight", "2.5").lines == [
        "Tenant 'ada' has weight 2.5 in queue 'default'."
    ]
    assert cli.fine("tenants", "list", "--queue", "default")[0]["weight"] == 2.5
    assert cli.fine("tenants", "unset", "ada")["changed"] is True
    assert cli("tenants", "unset", "ada").lines == [
        "Tenant 'ada' had no weight of its own in queue 'default'."
    ]


def test_groups_are_paused_and_resumed(cli: CommandLine):
    job = cli.fine("enqueue", "send", "--group", "a")["id"]

    paused = cli.fine("groups", "pause", "a", "b", "--for", "2h", "--why", "their shop moves")

    assert [(one["name"], one["paused"], one["pause_reason"]) for one in paused] == [
        ("a", True, "their shop moves"),
        ("b", True, "their shop moves"),
    ]
    assert "paused for 2 h" in cli("groups", "list").out
    [why] = cli.fine("jobs", "why", str(job))["reasons"]
    assert why.startswith("Its group 'a' is paused until ") and why.endswith(": their shop moves.")
    assert cli("groups", "resume", "a", "c").lines == [
        "Group 'a' is resumed.",
        "Group 'c' was not paused.",
    ]
    assert cli.fine("jobs", "show", str(job))["state"] == "pending"


def test_jobs_are_found_by_their_key_and_their_group(cli: CommandLine):
    keyed = cli.fine("enqueue", "send", "--key", "k")["id"]
    grouped = cli.fine("enqueue", "send", "--group", "customer:42", "--group-limit", "9")["id"]
    cli.fine("enqueue", "send")

    assert [job["id"] for job in cli.fine("jobs", "list", "--key", "k")] == [keyed]
    assert [job["id"] for job in cli.fine("jobs", "list", "--group", "customer:42")] == [grouped]
    assert cli.fine("jobs", "list", "--group", "customer:42", "--key", "k") == []
    preview = cli("jobs", "cancel", "--all", "--key", "k", "--group", "g", "--dry-run")
    assert preview.out == "No jobs with key k in group g would be cancelled. Nothing was changed.\n"
    begun = cli("jobs", "cancel", "--all", "--group", "customer:42", "--yes", "--no-wait")
    assert begun.out.endswith(" in group customer:42 to be cancelled.\n")
    assert cli.fine("jobs", "delete", "--all", "--state", "pending", "--key", "k", "--yes")["deleted"] == 1
    assert cli.fine("jobs", "repin", "1", "--tag", "a", "--key", "k", "--dry-run")["jobs"] == 0
    answer = cli("jobs", "list", "--group", "")
    assert (answer.code, len(answer.error.splitlines())) == (2, 1)


def test_jobs_are_tagged_and_found_by_their_tags(cli: CommandLine):
    first = cli.fine("enqueue", "send", "--tag", "a", "--tag", "b")["id"]
    second = cli.fine("enqueue", "send", "--tag", "b")["id"]

    assert cli.fine("jobs", "show", str(first))["tags"] == ["a", "b"]
    assert "tags              a, b" in cli("jobs", "show", str(first)).out
    assert [job["id"] for job in cli.fine("jobs", "list", "--tag", "b")] == [second, first]
    assert [job["id"] for job in cli.fine("jobs", "list", "--tag", "b", "--tag", "a")] == [first]
    preview = cli("jobs", "cancel", "--all", "--tag", "b", "--dry-run")
    assert preview.out == "2 pending jobs with tag b would be cancelled. Nothing was changed.\n"
    assert cli.fine("jobs", "cancel", "--all", "--tag", "a", "--yes")["cancelled"] == 1
    assert cli.fine("jobs", "retry", "--all", "--tag", "a", "--yes")["retried"] == 1
    assert cli.fine("jobs", "delete", "--all", "--state", "pending", "--tag", "b", "--yes")["deleted"] == 2
    answer = cli("jobs", "retry", str(first), "--tag", "a")
    assert (
        "The filters --state, --queue, --kind, --key, --group, --tag go with --all, not with ids."
        in answer.error
    )


def test_an_ended_job_is_run_again_with_other_arguments(cli: CommandLine):
    old = cli.fine("enqueue", "send", '{"to": "ada"}', "--key", "k")["id"]
    assert (
        f"Job {old} is pending; only an ended job can be run again." in cli("jobs", "rerun", str(old)).error
    )
    cli.fine("jobs", "cancel", str(old))

    new = cli.fine("jobs", "rerun", str(old), '{"to": "bob"}')

    assert new == {"id": old + 1, "rerun_of": old}
    assert cli.fine("jobs", "show", str(old))["reruns"] == [old + 1]
    assert cli.fine("jobs", "show", str(old + 1))["payload"] == {"to": "bob"}
    assert f"run again as      {old + 1}" in cli("jobs", "show", str(old)).out
    assert f"rerun of          {old}" in cli("jobs", "show", str(old + 1)).out
    again = cli("jobs", "rerun", str(old))
    assert f"Job {old} was not run again: job {old + 1} has its key, and has not ended." in again.error


def test_an_operation_is_begun_looked_at_waited_for_and_cancelled(cli: CommandLine):
    for _ in range(3):
        cli.fine("enqueue", "send", "--tag", "a")

    begun = cli.fine("jobs", "cancel", "--all", "--tag", "a", "--yes", "--no-wait")

    assert (begun["move"], begun["state"], begun["meant"], begun["changed"]) == ("cancelled", "working", 3, 0)
    assert begun["sample"] == [3, 2, 1]
    id = str(begun["id"])
    shown = cli("operations", "show", id).out
    assert (
        "3 jobs that are scheduled or retrying or blocked or waiting or pending or in_progress with tags a"
        in shown
    )
    assert "@" in shown.splitlines()[3]
    assert cli.fine("operations", "wait", id) == {"cancelled": 3, "running": 0, "skipped": 0, "locked": 0}
    [listed] = cli.fine("operations", "list")
    assert (listed["state"], listed["changed"]) == ("done", 3)
    assert f"Operation {id} had already ended; nothing was changed." in cli("operations", "cancel", id).error

    second = cli.fine("jobs", "retry", "--all", "--yes", "--no-wait", "--rate", "2.5")
    assert second["rate"] == 2.5
    assert cli.fine("operations", "cancel", str(second["id"]), "--by", "ada")["state"] == "cancelled"
    answer = cli("operations", "wait", str(second["id"]))
    assert f"Operation {second['id']} was not done: Cancelled by ada. 0 jobs were retried." in answer.error
    assert "There is no operation 99." in cli("operations", "show", "99").error


def test_jobs_are_moved_and_get_another_priority(cli: CommandLine):
    cli.fine("queues", "set", "mail")
    for _ in range(2):
        cli.fine("enqueue", "send")

    assert cli.fine("jobs", "move", "--all", "--to", "mail", "--yes")["moved"] == 2
    assert cli.fine("jobs", "reprioritise", "--all", "--priority", "7", "--yes")["reprioritised"] == 2
    assert {(job["queue"], job["priority"]) for job in cli.fine("jobs", "list")} == {("mail", 7)}
    assert "needs --all" in cli("jobs", "move", "--to", "mail", "--yes").error
    assert "There is no queue 'nix'" in cli("jobs", "move", "--all", "--to", "nix", "--yes").error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["retry", "1", "--rate", "5"], "--rate goes with --all, not with ids."),
        (
            ["retry", "--all", "--yes", "--rate", "0"],
            "--rate is '0', allowed is more than 0 and up to 10,000.",
        ),
        (["retry", "--all", "--yes", "--rate", "x"], "--rate is 'x', allowed is more than 0"),
        (["cancel", "1", "--no-wait"], "--no-wait goes with --all, not with ids."),
    ],
)
def test_half_of_an_operation_is_told(cli: CommandLine, arguments: list[str], said: str):
    assert said in cli("jobs", *arguments).error


def test_half_of_a_group_is_told(cli: CommandLine):
    answer = cli("enqueue", "send", "--group-limit", "2")

    assert "--group-limit or --overflow is given and --group is not" in answer.error


def test_a_kind_by_a_slip_of_the_hand_is_warned_of(cli: CommandLine):
    cli.using(_ended)

    answer = cli("enqueue", "ehco")

    assert answer.code == 0
    assert answer.error == (
        "A job of kind ehco was enqueued, and neither a live worker nor a program has a handler for it; "
        "did you mean echo?\n"
    )
    assert json.loads(cli("enqueue", "ehco", "--json").error)["warning"] + "\n" == answer.error


def test_no_command_shows_what_is_redacted(cli: CommandLine):
    async def declare(forge: Forge) -> None:
        await forge.storage.kinds.declare([Kind("pay", redact=("card",))], by="a test")

    cli.using(declare)
    payload = '{"order": 7, "card": "4111-1111"}'

    said = [
        cli("enqueue", "pay", payload),
        cli("cron", "set", "nightly", "0 3 * * *", "--kind", "pay", "--payload", payload, "--json"),
    ]
    cli.fine("jobs", "complete", "1", "--result", payload)
    for command in (
        *(("jobs", "show", "1"), ("jobs", "wait", "1"), ("jobs", "watch", "1"), ("jobs", "why", "1")),
        *(("jobs", "list"), ("cron", "list"), ("cron", "disable", "nightly"), ("cron", "enable", "nightly")),
    ):
        said += [cli(*command), cli(*command, "--json")]

    assert [answer for answer in said if answer.code or "4111" in answer.out + answer.error] == []
    shown = cli.fine("jobs", "show", "1")
    assert (shown["payload"], shown["result"]) == ({"order": 7, "card": "(redacted)"},) * 2
    assert shown["redacted"] == ["card"]
    assert cli.fine("cron", "list")[0]["payload"] == {"order": 7, "card": "(redacted)"}

"""How a program says the time limits of its jobs, and what it is told when it says them wrongly."""

from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Forge, InvalidInput
from tests.command_line import CommandLine, migrated

MOMENT = datetime(2030, 1, 31, 8, tzinfo=UTC)


@pytest.fixture
async def forge(tmp_path):
    forge = Forge(f"sqlite:///{tmp_path}/q.sqlite")

    @forge.handler(start_by=60, deadline=timedelta(hours=1))
    async def send(to: str = "a") -> None: ...

    @forge.handler
    async def plain() -> None: ...

    async with forge:
        yield forge


async def limits(forge, answer):
    job = await forge.jobs.get(answer)
    return tuple(
        None if limit is None else round((limit - job.created_at).total_seconds())
        for limit in (job.start_by, job.deadline)
    )


async def test_a_handler_says_the_time_limits_of_its_jobs_and_a_call_says_more(forge):
    assert await limits(forge, await forge.enqueue("send")) == (60, 3600)
    assert await limits(forge, await forge.enqueue("send", start_by=5)) == (5, 3600)
    assert await limits(forge, (await forge.enqueue_many("send", [{}, {}]))[1]) == (60, 3600)
    assert await limits(forge, await forge.enqueue("plain")) == (None, None)
    job = await forge.jobs.get(await forge.enqueue("plain", deadline=MOMENT))
    assert (job.start_by, job.deadline) == (None, MOMENT)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"start_by": 0}, "start_by is 0, allowed is more than 0 s, or a moment"),
        ({"deadline": -1}, "deadline is -1"),
        ({"start_by": "5m"}, "start_by is '5m', allowed is a timedelta or a number of seconds"),
        ({"start_by": datetime(2030, 1, 1)}, "allowed is a datetime with a time zone"),
        ({"run_at": MOMENT, "start_by": MOMENT}, "allowed is a moment after run_at"),
        ({"run_at": MOMENT, "deadline": MOMENT - timedelta(hours=1)}, "allowed is a moment after run_at"),
        (
            {"delay": timedelta(days=3650), "start_by": MOMENT},
            "start_by is 2030-01-31 08:00:00 UTC, allowed is a moment after the delay, which ends at",
        ),
        ({"delay": 3.2e8, "deadline": MOMENT}, "allowed is a moment after the delay"),
        ({"start_by": MOMENT, "deadline": MOMENT}, "allowed is a moment after start_by"),
        (
            {"start_by": 60, "deadline": 60},
            "deadline is 1 min, allowed is more than start_by, which is 1 min",
        ),
    ],
)
async def test_time_limits_that_no_job_can_keep_are_refused_and_nothing_is_written(forge, said, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        await forge.enqueue("plain", **said)
    assert await forge.jobs.list() == []


async def test_a_call_that_contradicts_its_handler_is_refused(forge):
    with pytest.raises(InvalidInput, match="deadline is 30 s, allowed is more than start_by, which is 1 min"):
        await forge.enqueue("send", deadline=30)


@pytest.mark.parametrize("option", ["start_by", "deadline"])
async def test_a_handler_and_a_cron_say_how_long_and_not_when(forge, option):
    with pytest.raises(InvalidInput, match=f"{option} is .*, allowed is a timedelta or a number of seconds"):
        forge.handler(kind="other", **{option: MOMENT})(lambda: None)
    with pytest.raises(InvalidInput, match=f"{option} is .*, allowed is a timedelta or a number of seconds"):
        await forge.crons.set("nightly", "0 3 * * *", "plain", **{option: MOMENT})


async def test_a_job_says_what_will_become_of_it(forge):
    answer = await forge.enqueue("send", start_by=MOMENT, deadline=MOMENT + timedelta(hours=1))

    reasons = (await forge.jobs.why(answer)).reasons

    assert any(
        reason.startswith("It expires unless it begins by 2030-01-31 08:00:00 UTC, in ") for reason in reasons
    )
    assert any(
        reason.startswith("Its deadline is 2030-01-31 09:00:00 UTC, in ")
        and reason.endswith(": it is dead then.")
        for reason in reasons
    )


@pytest.fixture
def cli(tmp_path, capsys, monkeypatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


def test_the_command_line_says_and_shows_time_limits(cli: CommandLine):
    job = cli.fine("enqueue", "send", "--start-by", "5m", "--deadline", "2030-01-31T08:00:00Z")["id"]

    shown = cli.fine("jobs", "show", str(job))

    assert shown["start_by"] is not None
    assert shown["deadline"] == "2030-01-31T08:00:00+00:00"
    assert "deadline" in cli("jobs", "show", str(job)).out
    assert cli.fine("jobs", "list", "--state", "expired") == []
    assert cli.fine("stats")["queues"][0]["expired"] == 0
    cron = cli.fine("cron", "set", "nightly", "0 3 * * *", "--kind", "send", "--start-by", "1h")
    assert cron["start_by_seconds"] == 3600.0


def test_a_time_limit_that_is_none_is_told(cli: CommandLine):
    answer = cli("enqueue", "send", "--start-by", "soon")

    assert (
        "--start-by is 'soon', allowed is a duration like 90s, 5m or 2h, or a date and time" in answer.error
    )

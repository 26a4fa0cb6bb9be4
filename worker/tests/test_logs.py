"""What the worker says, and how often."""

import asyncio
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge, Worker
from forge_jobs.model.job import Claim
from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.time_limit import OutOfTime
from forge_jobs.telemetry import events, logs
from forge_jobs.telemetry.current_job import current_job
from forge_jobs.telemetry.events import JobsEnded
from forge_jobs.telemetry.log_format import JsonFormatter, TextFormatter
from forge_jobs.telemetry.log_sentences import SENTENCES
from forge_jobs.telemetry.telemetry import Telemetry

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def claim(job_id: int = 42, kind: str = "send_email", attempt: int = 2) -> Claim:
    return Claim(
        job_id=job_id,
        worker_id=7,
        attempt=attempt,
        queue_id=1,
        kind=kind,
        payload=b"{}",
        codec="json",
        priority=0,
        pos=0,
        max_attempts=5,
        timeout=None,
        key=None,
        created=MOMENT.timestamp(),
    )


def run(outcome: Outcome, **facts: Any) -> Run:
    return Run(claim(), "mail", outcome, wait=0.004, duration=0.25, **facts)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def said(telemetry: Telemetry) -> Iterator[Callable[..., list[str]]]:
    """Subscribes with the given options and returns the lines for some events."""
    stream = io.StringIO()
    ends: list[Callable[[], None]] = []

    def say(*happened: events.Event, **options: Any) -> list[str]:
        if not ends:
            ends.append(logs.subscribe(telemetry, stream=stream, **options))
        for event in happened:
            telemetry.emit(event)
        return stream.getvalue().splitlines()

    yield say
    for end in ends:
        end()


def test_a_failed_attempt_is_a_warning_with_its_error_and_when_it_is_tried_again(said: Any) -> None:
    [line] = said(JobsEnded([run(Outcome.FAILED, error="ValueError: boom", retry_in=10.0)]))

    assert "WARNING Job 42 failed, retry in 10 s: ValueError: boom  " in line
    assert line.endswith(
        "job_id=42 kind=send_email queue=mail attempt=2 outcome=failed wait=0.004 duration=0.25 retry_in=10"
    )


def test_jobs_whose_time_is_over_are_said_one_by_one(said: Any) -> None:
    late = OutOfTime(7, "mail", "send", True, "expired: it was not begun by 2026-01-01 00:00:00 UTC")
    over = OutOfTime(8, "mail", "send", False, "overdue: it had not ended by 2026-01-01 00:00:00 UTC")

    first, second = said(events.JobsOutOfTime([late, over]))

    assert "WARNING Job 7 was not run: expired: it was not begun by 2026-01-01 00:00:00 UTC  " in first
    assert "job_id=7 kind=send queue=mail" in first and "outcome=expired" in first
    assert "ERROR   Job 8 is dead: overdue: it had not ended by 2026-01-01 00:00:00 UTC  " in second


def test_an_exit_that_did_not_end_the_worker_is_said_with_its_job_or_those_that_run(said: Any) -> None:
    label, where = "shop-worker-1", "shop.py:7 in leave: sys.exit(code)"
    known = events.ExitContained(label, "SystemExit: 3", where, claim(), running=[41, 42])
    unknown = events.ExitContained(label, "SystemExit: 4", where, None, running=[41])

    first, second = said(known, known, unknown, unknown)  # each once for a while, however often it comes

    ended = f"at {where} would have ended worker {label}, which goes on"
    assert f"ERROR   SystemExit: 3 {ended}; it came from job 42; running jobs: 41,42  " in first
    assert f"ERROR   SystemExit: 4 {ended}; it came from no job that is known; running jobs: 41  " in second


def test_a_dead_job_is_an_error(said: Any) -> None:
    [line] = said(JobsEnded([run(Outcome.DEAD, error="ValueError: boom")]))

    assert "ERROR   Job 42 is dead: ValueError: boom" in line


def test_a_done_job_is_said_at_info_only(said: Any) -> None:
    done = JobsEnded([run(Outcome.DONE), run(Outcome.DEAD)])

    [line] = said(done, level="WARNING")

    assert "is dead" in line


def test_every_line_of_a_job_names_the_worker_that_ran_it(said: Any) -> None:
    started = events.WorkerStarted(
        "shop-worker-1-a", ["mail", "default"], 50, "postgresql://ada@db/shop", ["send_email", "resize"]
    )

    lines = said(started, JobsEnded([run(Outcome.DONE)]))

    assert (
        "Worker shop-worker-1-a serves mail,default of postgresql://ada@db/shop, up to 50 jobs at once; "
        "kinds: send_email,resize"
    ) in lines[0]
    assert "INFO    Job 42 is done" in lines[1]
    assert "worker=shop-worker-1-a" in lines[1]


def test_json_lines_carry_every_fact_as_a_field(said: Any) -> None:
    [line] = said(
        JobsEnded([run(Outcome.FAILED, error="ValueError: boom\n  File ...", retry_in=10.0)]),
        format="json",
    )

    fields = json.loads(line)
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "warning",
        "logger": "forge_jobs",
        "message": "Job 42 failed, retry in 10 s: ValueError: boom",
        "job_id": 42,
        "kind": "send_email",
        "queue": "mail",
        "attempt": 2,
        "outcome": "failed",
        "wait": 0.004,
        "duration": 0.25,
        "retry_in": 10.0,
        "error": "ValueError: boom\n  File ...",
    }


def test_an_error_of_many_lines_cannot_look_like_lines_of_the_log(said: Any) -> None:
    forged = "boom\n2026-01-01T00:00:00.000Z INFO    Job 43 is done\n\x1b[2Jgone"

    lines = said(JobsEnded([run(Outcome.FAILED, error=forged)]))

    assert "Job 42 failed: boom  job_id=42" in lines[0]
    assert len(lines) == 3
    assert all(line.startswith("    ") for line in lines[1:])
    assert lines[-1] == r"    \x1b[2Jgone"


def formatted(formatter: logging.Formatter, message: str) -> str:
    """Format past the loggers, whose lines pytest would pass on as unicode."""
    return formatter.format(logging.LogRecord("shop", logging.WARNING, __file__, 1, message, (), None))


def test_text_that_is_no_unicode_is_still_a_line() -> None:
    assert r"half \ud800" in formatted(TextFormatter(), "half \ud800")


def test_json_of_text_that_is_no_unicode_is_still_json() -> None:
    assert "half" in json.loads(formatted(JsonFormatter(), "half \ud800"))["message"]


def test_a_database_that_stays_away_is_said_once_and_then_ever_more_seldom(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    subscriber = logs.LogSubscriber(clock=lambda: now)

    said_at = []
    for second in range(600):
        now = float(second)
        subscriber(events.DatabaseLost("claim", "connection refused", 1.0))
        subscriber(events.DatabaseLost("heartbeat", "connection refused", 5.0))
        if caplog.records:
            said_at.append(second)
            caplog.clear()

    assert said_at == [0, 5, 15, 35, 75, 155, 315]


def test_a_database_that_comes_back_is_said_once_with_how_long_it_was_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subscriber = logs.LogSubscriber(clock=lambda: 0.0)

    subscriber(events.DatabaseLost("claim", "connection refused", 1.0))
    subscriber(events.DatabaseBack("claim", 61.25))
    subscriber(events.DatabaseBack("heartbeat", 61.5))
    subscriber(events.DatabaseLost("claim", "connection refused", 1.0))

    assert [record.getMessage() for record in caplog.records] == [
        "The database does not answer (claim): connection refused; next try in 1 s",
        "The database answers again; it was away for 61.25 s",
        "The database does not answer (claim): connection refused; next try in 1 s",
    ]


def test_a_queue_that_may_be_misspelt_is_a_question(said: Any) -> None:
    [line] = said(events.QueueResembles("mial", "mail"))

    assert "WARNING There was no queue mial, so it was made; did you mean mail?" in line


def test_two_unserved_queues_are_both_said(caplog: pytest.LogCaptureFixture) -> None:
    subscriber = logs.LogSubscriber(clock=lambda: 0.0)

    for _ in range(3):
        subscriber(events.QueueUnserved("mail", 3))
        subscriber(events.QueueUnserved("default", 1))

    assert [vars(record)["queue"] for record in caplog.records] == ["mail", "default"]


def test_an_unforeseen_failure_of_a_chore_comes_with_its_traceback(said: Any) -> None:
    try:
        raise KeyError("surprise")
    except KeyError as caught:
        error = caught

    lines = said(events.ChoreFailed("sweep", error, 5.0))

    assert (
        "ERROR   Chore sweep failed: KeyError: 'surprise'; next try in 5 s  chore=sweep retry_in=5"
        in lines[0]
    )
    assert lines[1] == "    Traceback (most recent call last):"


def test_a_traceback_is_summed_up_by_its_end(said: Any) -> None:
    trace = 'Traceback (most recent call last):\n  File "shop.py", line 3\nValueError: boom'

    lines = said(JobsEnded([run(Outcome.DEAD, error=trace)]))

    assert "Job 42 is dead: ValueError: boom  " in lines[0]
    assert lines[1:] == ['      File "shop.py", line 3', "    ValueError: boom"]


def test_a_list_of_nothing_is_none(said: Any) -> None:
    [line] = said(events.HistoryCut([], 3))

    assert (
        "it still knows 3 jobs of this worker; these were stopped, since it does not know them: none" in line
    )


def test_what_is_below_the_level_is_not_said(said: Any) -> None:
    assert said(events.LeaderChanged("a", True, 1), events.JobsMadePending(3), level="WARNING") == []


def test_every_event_has_a_sentence() -> None:
    spoken = {events.JobsEnded, events.JobsTakenBack, events.JobsOutOfTime, events.LeaderChanged, *SENTENCES}
    offered = {getattr(events, name) for name in events.__all__} - {events.Event}
    declared = {
        kind.__name__ for kind in events.Event.__subclasses__() if kind.__module__.startswith("forge_jobs.")
    }

    assert offered == spoken
    assert declared == {kind.__name__ for kind in offered}


def test_every_sentence_can_be_said(said: Any) -> None:
    values = {
        "int": 3,
        "str": "some",
        "float": 1.5,
        "bool": True,
        "Claim": claim(),
        "BaseException": KeyError("x"),
    }

    values["forge_jobs.model.job.Claim | None"] = claim()

    def value(annotation: Any) -> Any:
        name = getattr(annotation, "__name__", str(annotation))
        return [] if name == "Sequence" else values[name]

    for event in SENTENCES:
        before = len(said(level="DEBUG"))
        happened = event(*(value(each.type) for each in event.__dataclass_fields__.values()))  # type: ignore[attr-defined]
        if isinstance(happened, events.DatabaseBack):
            said(events.DatabaseLost("claim", "refused", 1.0))
        assert len(said(happened)) > before, event


async def test_lines_that_a_handler_writes_itself_name_its_job(said: Any) -> None:
    said()

    async def handler(job_id: int) -> None:
        current_job.set((claim(job_id), "mail"))
        await asyncio.to_thread(logging.getLogger("shop.mail").warning, "sent to %s", "a@example.com")

    await asyncio.gather(handler(1), handler(2))

    lines = said()
    assert "WARNING shop.mail: sent to a@example.com  job_id=" in lines[0]
    assert {line.split("  ")[1] for line in lines} == {
        "job_id=1 kind=send_email queue=mail attempt=2",
        "job_id=2 kind=send_email queue=mail attempt=2",
    }


def test_a_program_that_configured_logging_keeps_its_handlers_which_learn_the_job(
    telemetry: Telemetry,
) -> None:
    heard: list[logging.LogRecord] = []
    theirs = logging.Handler()
    theirs.emit = heard.append  # type: ignore[assignment, method-assign]
    root = logging.getLogger()
    root.addHandler(theirs)
    handlers = list(root.handlers)

    end = logs.subscribe(telemetry)
    token = current_job.set((claim(), "mail"))
    logging.getLogger("shop").warning("hello")
    current_job.reset(token)
    logging.getLogger("shop").warning("outside")
    during = list(root.handlers)
    end()
    root.removeHandler(theirs)

    assert during == handlers
    assert heard[0].job_id == 42  # type: ignore[attr-defined]
    assert not hasattr(heard[1], "job_id")


def test_a_level_that_does_not_exist_changes_nothing(telemetry: Telemetry) -> None:
    handlers = list(logging.getLogger().handlers)

    with pytest.raises(ValueError, match="LOUD"):
        logs.subscribe(telemetry, level="LOUD", stream=io.StringIO())

    assert logging.getLogger().handlers == handlers


def test_starts_of_jobs_are_said_at_debug_only(telemetry: Telemetry) -> None:
    end = logs.subscribe(telemetry, level="DEBUG", stream=io.StringIO())
    end()

    assert telemetry.wants_starts


async def drained(forge: Forge) -> int:
    """Run one job of a program, which logs; return its id."""

    @forge.handler
    async def greet() -> None:
        logging.getLogger("shop").warning("hello")

    async with forge:
        job = await greet.enqueue()
        await Worker(forge, queues=["default"]).run(until_empty=True)
        return job.id


async def test_a_worker_in_a_program_says_its_events_by_standard_logging(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    job_id = await drained(Forge(f"sqlite:///{tmp_path}/queue.sqlite"))

    ours = [record for record in caplog.records if record.name == "forge_jobs"]
    assert [record.levelname for record in ours if record.getMessage() == f"Job {job_id} is done"] == ["INFO"]
    assert [record.getMessage() for record in ours if "stopped" in record.getMessage()]


def test_a_configuration_of_logging_that_is_made_later_does_not_silence_the_worker(said: Any) -> None:
    said()

    logs.logger.disabled = True  # as `logging.config.dictConfig` leaves loggers that it does not name

    assert len(said(JobsEnded([run(Outcome.FAILED, error="broken")]))) == 1


async def test_a_program_decides_by_its_own_configuration_what_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")

    await drained(Forge(f"sqlite:///{tmp_path}/queue.sqlite"))

    assert [record.getMessage() for record in caplog.records] == ["hello"]


async def test_a_program_that_subscribed_hears_each_event_once(tmp_path: Path) -> None:
    forge = Forge(f"sqlite:///{tmp_path}/queue.sqlite")
    stream = io.StringIO()
    end = logs.subscribe(forge.telemetry, stream=stream)

    job_id = await drained(forge)
    end()

    lines = stream.getvalue().splitlines()
    assert len([line for line in lines if f"Job {job_id} is done" in line]) == 1
    [said] = [line for line in lines if "shop: hello" in line]
    assert f"job_id={job_id} kind=greet queue=default" in said


def test_a_program_that_writes_to_the_console_itself_has_no_line_twice(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = io.StringIO()
    monkeypatch.setattr(sys, "stderr", console)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # what others left there
    theirs = logging.StreamHandler(console)
    logging.getLogger().addHandler(theirs)
    try:
        end = logs.subscribe(telemetry, stream=console)
        logging.getLogger("shop").warning("hello")
        end()
        assert len(console.getvalue().splitlines()) == 1
        assert theirs in logging.getLogger().handlers
    finally:
        logging.getLogger().removeHandler(theirs)


def test_a_filter_gives_a_programs_own_handler_the_job(telemetry: Telemetry) -> None:
    heard: list[logging.LogRecord] = []
    theirs = logging.Handler()
    theirs.emit = heard.append  # type: ignore[assignment, method-assign]
    theirs.addFilter(logs.JobFacts())
    token = current_job.set((claim(), "mail"))

    theirs.handle(logging.makeLogRecord({"name": "shop"}))
    current_job.reset(token)

    assert heard[0].job_id == 42  # type: ignore[attr-defined]

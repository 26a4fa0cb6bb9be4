"""What Prometheus is told, and what docs/metrics.md says about it."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from forge_jobs.maintenance.permits import AwaitedTokens
from forge_jobs.maintenance.tenants import TenantCounts
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Claim, State
from forge_jobs.model.permit import PermitRequest
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.time_limit import OutOfTime
from forge_jobs.probes.metrics import Metrics
from forge_jobs.rules.verdict import Verdict, as_written, failed, handed_back
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry import events, job_series
from forge_jobs.telemetry.events import JobsEnded
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.run_counts import RunCounts
from tests.storage import factories
from tests.storage.databases import SqliteDatabase, migrated_storage

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def run(
    outcome: Outcome = Outcome.DONE, kind: str = "send_email", wait: float = 0.0, duration: float = 0.0
) -> Run:
    claim = Claim(42, 7, 1, 1, kind, b"{}", "json", 0, 0, 5, None, None, MOMENT.timestamp())
    return Run(claim, "mail", outcome, wait, duration)


class Page:
    """What a scrape said, to be asked for single values."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(parse_text(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sample's value, None when there is none."""
        found = [each.value for each in self.samples if each.name == name and each.labels == labels]
        assert len(found) <= 1, f"{name} {labels} is there twice"
        return found[0] if found else None


async def scraped(metrics: Metrics) -> Page:
    body, content_type = await metrics.scrape()
    assert content_type.startswith("text/plain; version=0.0.4")
    return Page(body.decode())


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def database(tmp_path: Path) -> SqliteDatabase:
    return SqliteDatabase(tmp_path / "queue.sqlite")


@pytest.fixture
async def storage(database: SqliteDatabase) -> AsyncIterator[Storage]:
    async with migrated_storage(database) as storage:
        yield storage


async def test_attempts_are_counted_by_queue_kind_and_outcome(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)

    telemetry.emit(
        JobsEnded([run(Outcome.DONE), run(Outcome.DONE), run(Outcome.FAILED), run(Outcome.DONE, "resize")])
    )
    page = await scraped(metrics)

    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="done") == 2
    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="failed") == 1
    assert page.value("forge_jobs_ended_total", queue="mail", kind="resize", outcome="done") == 1


async def test_a_kind_that_never_failed_shows_so_since_a_rate_does_not_see_a_first_value(
    telemetry: Telemetry,
) -> None:
    metrics = Metrics(telemetry)

    telemetry.emit(JobsEnded([run(Outcome.DONE)]))
    page = await scraped(metrics)

    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="failed") == 0
    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="dead") == 0
    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="lost") is None


async def test_wait_and_run_time_fall_into_cumulated_buckets(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)
    labels = {"queue": "mail", "kind": "send_email"}

    telemetry.emit(
        JobsEnded([run(wait=0.001, duration=0.2), run(wait=0.3, duration=7200.0), run(wait=-0.01)])
    )
    page = await scraped(metrics)

    assert page.value("forge_jobs_wait_seconds_bucket", le="0.001", **labels) == 2
    assert page.value("forge_jobs_wait_seconds_bucket", le="0.25", **labels) == 2
    assert page.value("forge_jobs_wait_seconds_bucket", le="0.5", **labels) == 3
    assert page.value("forge_jobs_wait_seconds_sum", **labels) == pytest.approx(0.301)
    assert page.value("forge_jobs_run_seconds_bucket", le="3600.0", **labels) == 2
    assert page.value("forge_jobs_run_seconds_bucket", le="+Inf", **labels) == 3
    assert page.value("forge_jobs_run_seconds_count", **labels) == 3


async def test_a_job_that_was_handed_back_is_counted_but_not_timed(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)

    telemetry.emit(JobsEnded([run(Outcome.HANDED_BACK)]))
    telemetry.emit(events.JobsTakenBack([run(Outcome.DEAD)]))
    page = await scraped(metrics)

    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="handed_back") == 1
    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="dead") == 1
    assert page.value("forge_jobs_taken_back_total", queue="mail") == 1
    assert page.value("forge_jobs_wait_seconds_count", queue="mail", kind="send_email") == 0


async def test_a_handler_that_goes_on_though_it_was_told_to_stop_is_counted_and_present_until_it_ends(
    telemetry: Telemetry,
) -> None:
    metrics = Metrics(telemetry)
    claim = run().claim

    telemetry.emit(events.HandlerStuck(claim, "mail", "timed out", 12.0, 1))
    page = await scraped(metrics)
    assert page.value("forge_jobs_stuck_total", queue="mail", kind="send_email") == 1
    assert page.value("forge_worker_stuck_handlers") == 1

    telemetry.emit(events.StuckHandlerEnded(claim, "mail", 60.0, 0))
    page = await scraped(metrics)
    assert page.value("forge_jobs_stuck_total", queue="mail", kind="send_email") == 1
    assert page.value("forge_worker_stuck_handlers") == 0


async def test_endlessly_many_kinds_do_not_become_endlessly_many_series(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_series, "MAX_SERIES", 3)
    metrics = Metrics(telemetry)

    telemetry.emit(JobsEnded([run(kind=f"kind-{number}") for number in range(10)]))
    page = await scraped(metrics)

    assert page.value("forge_jobs_ended_total", queue="mail", kind="kind-2", outcome="done") == 1
    assert page.value("forge_jobs_ended_total", queue="mail", kind="other", outcome="done") == 7


async def test_a_worker_tells_what_it_runs_and_whether_it_leads(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry, running=lambda: 3)

    telemetry.emit(events.WorkerStarted("a", ["mail"], 50, "sqlite://:memory:", []))
    telemetry.emit(events.LeaderChanged("a", True, 7))
    page = await scraped(metrics)

    assert page.value("forge_worker_running_jobs") == 3
    assert page.value("forge_worker_capacity") == 50
    assert page.value("forge_leader") == 1
    telemetry.emit(events.LeaderChanged("a", False, 7))
    telemetry.emit(events.WorkerStopped("a", 0))
    page = await scraped(metrics)
    assert page.value("forge_worker_capacity") == 0
    assert page.value("forge_leader") == 0
    assert page.value("forge_leader_elections_total") == 1


async def test_labels_with_any_characters_come_through(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)

    telemetry.emit(events.LimitEmptied('sl"ack\\\n'))
    page = await scraped(metrics)

    assert page.value("forge_rate_limit_emptied_total", scope='sl"ack\\\n') == 1


async def test_openmetrics_is_given_to_whom_asks_for_it(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)
    telemetry.emit(JobsEnded([run()]))

    body, content_type = await metrics.scrape("application/openmetrics-text; version=1.0.0")

    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert "forge_jobs_ended" in {family.name for family in parse_openmetrics(body.decode())}


async def test_after_close_nothing_is_counted(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)

    metrics.close()
    telemetry.emit(events.JobsSwept(3))

    assert (await scraped(metrics)).value("forge_jobs_swept_total") == 0


async def test_each_queue_tells_its_jobs_and_how_long_the_oldest_has_waited(
    telemetry: Telemetry, storage: Storage, database: SqliteDatabase
) -> None:
    worker_id = await factories.worker(storage, ["mail"])
    await factories.ended(storage, worker_id, queue="mail")
    await factories.ended(storage, worker_id, State.DEAD, queue="mail")
    await factories.running(storage, worker_id, queue="mail")
    await factories.enqueue(storage, queue="mail", delay=timedelta(hours=1))
    await factories.enqueue(storage, queue="mail")
    await database.clock.advance(seconds=20)

    page = await scraped(Metrics(telemetry, storage))

    assert page.value("forge_queue_done_jobs", queue="mail") == 1
    assert page.value("forge_queue_dead_jobs", queue="mail") == 1
    assert page.value("forge_queue_in_progress_jobs", queue="mail") == 1
    assert page.value("forge_queue_scheduled_jobs", queue="mail") == 1
    assert page.value("forge_queue_pending_jobs", queue="mail") == 1
    assert page.value("forge_queue_oldest_pending_age_seconds", queue="mail") == pytest.approx(20, abs=5)
    assert page.value("forge_queue_oldest_pending_age_seconds", queue="default") == 0
    assert page.value("forge_database_up") == 1


async def test_each_queue_tells_how_it_is_configured(telemetry: Telemetry, storage: Storage) -> None:
    mail = await storage.queues.set("mail", {"concurrency": 3, "paused": True})
    await storage.queues.cool_down(mail.id, timedelta(minutes=1), 1)

    page = await scraped(Metrics(telemetry, storage))

    assert page.value("forge_queue_concurrency", queue="mail") == 3
    assert page.value("forge_queue_concurrency", queue="default") is None
    assert page.value("forge_queue_paused", queue="mail") == 1
    assert page.value("forge_queue_paused", queue="default") == 0
    assert page.value("forge_queue_cooling_down", queue="mail") == 1
    assert page.value("forge_queue_cooling_down", queue="default") == 0


async def test_a_queue_is_unserved_when_jobs_are_pending_and_no_live_worker_takes_them(
    telemetry: Telemetry, storage: Storage, database: SqliteDatabase
) -> None:
    worker_id = await factories.worker(storage, ["mail"])
    await factories.worker(storage, ["default"])
    await factories.enqueue(storage, queue="mail")

    served = await scraped(Metrics(telemetry, storage))
    await storage.workers.drain(worker_id)
    draining = await scraped(Metrics(telemetry, storage))
    await database.clock.advance(seconds=31)
    stale = await scraped(Metrics(telemetry, storage))

    assert (served.value("forge_workers"), served.value("forge_queue_live_workers", queue="mail")) == (2, 1)
    assert served.value("forge_queue_unserved", queue="mail") == 0
    assert (draining.value("forge_workers"), draining.value("forge_queue_live_workers", queue="mail")) == (
        2,
        0,
    )
    assert draining.value("forge_queue_unserved", queue="mail") == 1
    assert (stale.value("forge_workers"), stale.value("forge_queue_unserved", queue="default")) == (0, 0)


async def test_a_queue_is_unserved_when_none_of_its_workers_may_claim(
    telemetry: Telemetry, storage: Storage
) -> None:
    worker_id = await factories.worker(storage, ["mail"])
    await factories.enqueue(storage, queue="mail")
    epoch = (await storage.versions.take_over("operator-1")).number

    await storage.versions.cordon([worker_id], True, epoch=epoch)
    closed = await scraped(Metrics(telemetry, storage))

    assert (closed.value("forge_workers"), closed.value("forge_queue_live_workers", queue="mail")) == (1, 0)
    assert closed.value("forge_queue_unserved", queue="mail") == 1


async def test_leader_rate_limits_and_crons_are_told(telemetry: Telemetry, storage: Storage) -> None:
    nobody = await scraped(Metrics(telemetry, storage))
    epoch = await factories.leader(storage)
    await storage.limits.set("slack", capacity=5, refill=0.0)
    await storage.tokens.lease("slack", 2)
    await storage.crons.set(factories.cron())
    await storage.fires.seed("nightly", MOMENT, epoch=epoch)

    page = await scraped(Metrics(telemetry, storage))

    assert (nobody.value("forge_leader_present"), page.value("forge_leader_present")) == (0, 1)
    assert page.value("forge_rate_limit_tokens", scope="slack") == 3
    assert page.value("forge_rate_limit_capacity", scope="slack") == 5
    assert page.value("forge_cron_enabled", cron="nightly") == 1
    assert page.value("forge_cron_last_fire_timestamp_seconds", cron="nightly") is None
    assert page.value("forge_cron_next_fire_timestamp_seconds", cron="nightly") == MOMENT.timestamp()


async def test_the_database_is_asked_once_a_second_however_many_scrape(
    telemetry: Telemetry, storage: Storage
) -> None:
    now = 100.0
    metrics = Metrics(telemetry, storage, clock=lambda: now)
    await asyncio.gather(*(scraped(metrics) for _ in range(5)))
    await factories.enqueue(storage)

    at_once = await scraped(metrics)
    now += 1.0
    later = await scraped(metrics)

    assert at_once.value("forge_queue_pending_jobs", queue="default") == 0
    assert later.value("forge_queue_pending_jobs", queue="default") == 1


async def test_without_a_database_a_scrape_still_tells_what_happened_here(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async with migrated_storage(SqliteDatabase(tmp_path / "gone.sqlite")) as storage:
        metrics = Metrics(telemetry, storage)
    telemetry.emit(JobsEnded([run()]))

    page = await scraped(metrics)

    assert page.value("forge_database_up") == 0
    assert page.value("forge_jobs_ended_total", queue="mail", kind="send_email", outcome="done") == 1
    assert page.value("forge_workers") is None


async def test_waiting_jobs_whose_time_is_over_are_counted_by_their_outcome(
    telemetry: Telemetry, storage: Storage
) -> None:
    metrics = Metrics(telemetry, storage)
    jobs = [OutOfTime(number, "mail", "send", number != 3, "") for number in (1, 2, 3)]

    telemetry.emit(events.JobsOutOfTime(jobs))

    page = await scraped(metrics)
    ended = {"queue": "mail", "kind": "send"}
    assert page.value("forge_jobs_ended_total", **ended, outcome="expired") == 2
    assert page.value("forge_jobs_ended_total", **ended, outcome="dead") == 1
    assert page.value("forge_jobs_wait_seconds_count", **ended) == 0


@pytest.mark.parametrize(("expired", "outcome"), [(True, "expired"), (False, "dead")])
async def test_a_job_that_was_handed_back_too_late_is_counted_but_was_no_attempt(
    telemetry: Telemetry, expired: bool, outcome: str
) -> None:
    metrics = Metrics(telemetry)
    late = handed_back(run().claim, QueueConfig("mail"), 3.0, 0.1)
    late.run.claim.ended_by, late.run.claim.expired = "its time was over", expired
    failing = Verdict(
        failed(run().claim, QueueConfig("mail"), "it broke", 3.0, 0.1).write, run(Outcome.FAILED)
    )
    failing.run.claim.ended_by = "its time was over"
    ended = [as_written(late), as_written(failing)]
    counts = RunCounts(with_durations=True)

    telemetry.emit(JobsEnded(ended))
    counts.count(ended)

    page = await scraped(metrics)
    series = {"queue": "mail", "kind": "send_email"}
    assert page.value("forge_jobs_ended_total", **series, outcome=outcome) == 1 + (not expired)
    assert page.value("forge_jobs_wait_seconds_count", **series) == 1
    assert page.value("forge_jobs_run_seconds_count", **series) == 1
    assert (counts.failed, sum(counts.durations.values())) == (1, 1)


async def test_a_database_that_is_too_slow_does_not_hold_up_a_scrape(
    telemetry: Telemetry, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.probes.metrics.DATABASE_TIMEOUT", 0.0)

    page = await scraped(Metrics(telemetry, storage))

    assert (page.value("forge_database_up"), page.value("forge_workers")) == (0, None)


async def everything(telemetry: Telemetry, storage: Storage) -> Metrics:
    """Metrics after everything happened once, so that every one of them has a value."""
    metrics = Metrics(telemetry, storage)
    values = {
        "int": 3,
        "str": "some",
        "float": 1.5,
        "bool": True,
        "BaseException": KeyError("x"),
        "Claim": run().claim,
    }
    for event in {each for each in vars(events).values() if isinstance(each, type)}:
        if event in (events.JobsEnded, events.JobsTakenBack):
            telemetry.emit(event([run(outcome) for outcome in Outcome]))
        elif issubclass(event, events.Event) and event not in (events.Event, events.JobStarted):
            names = [getattr(each.type, "__name__", str(each.type)) for each in fields(event)]  # type: ignore[arg-type]
            telemetry.emit(event(*(values.get(name, ()) for name in names)))
    telemetry.emit(events.TenantsWaiting("mail", 2, 5, 1.5))  # the last: a change of leaders takes it away
    telemetry.emit(events.TokensAwaited("slack", 3))
    epoch = await factories.leader(storage)
    await storage.queues.set("mail", {"concurrency": 3})
    await storage.kinds.pause("send", until=None, reason=None)
    await storage.groups.pause("a", until=None, reason=None)
    await storage.limits.set("slack", capacity=5, refill=1.0)
    planned = await storage.crons.set(factories.cron())
    await storage.fires.seed("nightly", MOMENT, epoch=epoch)
    [planned] = await storage.crons.all()
    await storage.fires.fire(planned, [MOMENT], MOMENT + timedelta(days=1), epoch=epoch)
    return metrics


async def test_the_document_names_every_metric_with_its_labels_and_meaning_and_no_other(
    telemetry: Telemetry, storage: Storage
) -> None:
    page = await scraped(await everything(telemetry, storage))
    told = set()
    for family in page.families:
        if not family.name.startswith("process_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert family.samples, name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            told.add((name, family.type, ", ".join(sorted(labels)), family.documentation))

    rows = re.findall(r"^\| `(forge_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCUMENT.read_text(), re.MULTILINE)
    written = {
        (name, kind, ", ".join(sorted(re.findall(r"`(\w+)`", labels))), meaning)
        for name, kind, labels, meaning in rows
    }

    assert written == told


async def test_every_metric_that_a_question_of_the_document_uses_exists(
    telemetry: Telemetry, storage: Storage
) -> None:
    page = await scraped(await everything(telemetry, storage))
    names = {sample.name for sample in page.samples}

    asked = "\n".join(re.findall(r"```promql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL))

    assert asked.count("forge_") >= 5
    assert set(re.findall(r"\bforge_\w+", asked)) <= names


async def test_help_texts_are_sentences(telemetry: Telemetry, storage: Storage) -> None:
    page = await scraped(await everything(telemetry, storage))

    for family in page.families:
        assert re.fullmatch(r"[A-Z].*\.", family.documentation), family.name


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (apt package prometheus)"
)
async def test_promtool_finds_nothing_to_criticise(telemetry: Telemetry, storage: Storage) -> None:
    body, _ = await (await everything(telemetry, storage)).scrape()

    judged = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
    )

    assert (judged.returncode, judged.stdout + judged.stderr) == (0, b"")


async def test_the_leader_tells_how_many_jobs_wait_for_tokens_and_no_label_names_a_key(
    storage: Storage, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.maintenance.permits.SHARE", 0)
    metrics, awaited = Metrics(telemetry), AwaitedTokens(storage.permits, telemetry)
    for scope in ("slack", "model"):
        await storage.limits.set(scope, capacity=1, refill=0.001)
    one, two, three = [await factories.enqueue(storage, delay=timedelta(hours=1)) for _ in range(3)]
    wanted = [PermitRequest("slack", "ada", job_id=job_id) for job_id in (one, two, three, three)]
    await storage.permits.reserve([*wanted, PermitRequest("model", "bob", job_id=one)])

    await awaited.tell()
    page = await scraped(metrics)
    assert page.value("forge_rate_limit_waiting_jobs", scope="slack") == 2
    assert page.value("forge_rate_limit_waiting_jobs", scope="model") is None
    assert "ada" not in page.text

    await storage.limits.delete("slack")
    await awaited.tell()
    assert (await scraped(metrics)).value("forge_rate_limit_waiting_jobs", scope="slack") == 0
    telemetry.emit(events.LeaderChanged("w", False, LeaderEpoch(1)))
    assert (await scraped(metrics)).value("forge_rate_limit_waiting_jobs", scope="slack") is None


async def test_a_count_of_jobs_that_wait_rests_in_proportion_to_what_it_took(
    storage: Storage, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    async def waiting() -> dict[str, int]:
        looks.append(1)
        return {}

    monkeypatch.setattr(storage.permits, "waiting", waiting)
    monkeypatch.setattr("forge_jobs.maintenance.permits.SHARE", 1e12)
    awaited = AwaitedTokens(storage.permits, telemetry)

    await awaited.tell()
    await awaited.tell()

    assert len(looks) == 1


async def test_the_leader_tells_how_tenants_wait_and_no_label_names_one(
    storage: Storage, telemetry: Telemetry
) -> None:
    metrics = Metrics(telemetry)
    counts = TenantCounts(storage.tenants, telemetry)
    me = await factories.worker(storage)
    await factories.enqueue_many(storage, 5, tenant="ada")
    await factories.enqueue(storage, tenant="bob")

    await counts.tell()
    page = await scraped(metrics)
    assert page.value("forge_queue_waiting_tenants", queue="default") == 2
    assert page.value("forge_queue_largest_tenant_jobs", queue="default") == 5
    assert page.value("forge_queue_other_tenants_wait_seconds", queue="default") is not None
    assert "ada" not in page.text and "bob" not in page.text

    claims = await factories.claim(storage, me, limit=10)
    await storage.claims.finish([factories.done(claim) for claim in claims])
    await counts.tell()
    page = await scraped(metrics)
    for name in ("waiting_tenants", "largest_tenant_jobs", "other_tenants_wait_seconds"):
        assert page.value(f"forge_queue_{name}", queue="default") == 0

    telemetry.emit(events.LeaderChanged("w", False, LeaderEpoch(1)))
    assert (await scraped(metrics)).value("forge_queue_waiting_tenants", queue="default") is None

"""What Prometheus is told of each ForgeQueue, whether or not it has workers, and never an old number."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from forge_jobs import WorkerInfo
from forge_operator.cluster.api import QUEUES, Kube
from forge_operator.metrics.database import DatabaseMetrics, cron_gauges, queue_gauges
from forge_operator.metrics.operator import OperatorMetrics
from forge_operator.plan.scaling.decide import ScalingDecision, ScalingReason
from forge_operator.state.keys import CRON, QUEUE, Key
from tests.edges.api_server import ApiServer
from tests.edges.stage import MAIL, Stage, staged, workers

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
ASLEEP = {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 0}
MAILS = {"pool": "default/mail", "queue": "mail"}


@pytest.fixture
async def stage(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    """An operator that leads."""
    async with staged(api, kube, url) as found:
        found.metrics.database = reader(found).read
        yield found


def reader(stage: Stage, *, holds: bool = True) -> DatabaseMetrics:
    return DatabaseMetrics(stage.facts, stage.reconciler.known, may_tell=lambda: holds, fresh=0.0)


class Page:
    """What a scrape said, to be asked for single values."""

    def __init__(self, text: str) -> None:
        families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sample's value, None when there is none."""
        found = [each.value for each in self.samples if each.name == name and each.labels == labels]
        assert len(found) <= 1, f"{name} {labels} is there twice"
        return found[0] if found else None

    def of_the_database(self) -> set[str]:
        """Return the names of all series that rest on what the database says."""
        told = ("forge_queue_", "forge_cron_", "forge_autoscaler_")
        return {each.name for each in self.samples if each.name.startswith(told)}


async def scraped(metrics: OperatorMetrics) -> Page:
    body, content_type = await metrics.scrape("")
    assert content_type.startswith("text/plain")
    return Page(body.decode())


async def test_the_backlog_of_a_queue_without_workers_is_told(stage: Stage) -> None:
    stage.queue(workers=workers(autoscaling=ASLEEP))
    for _ in range(12):
        await stage.settle()
    assert stage.pods() == {"1": 0}
    await stage.forge.enqueue_many("send", [{}] * 3, queue="mail")
    await stage.forge.enqueue("send", {}, queue="mail", delay=3600)
    page = await scraped(stage.metrics)

    assert page.value("forge_queue_pending_jobs", **MAILS) == 3
    assert page.value("forge_queue_scheduled_jobs", **MAILS) == 1
    assert page.value("forge_queue_in_progress_jobs", **MAILS) == 0
    assert page.value("forge_queue_held_jobs", **MAILS) == 0
    assert page.value("forge_queue_oldest_pending_age_seconds", **MAILS) is not None
    assert page.value("forge_queue_live_workers", **MAILS) == 0
    assert page.value("forge_queue_paused", **MAILS) == 0


async def test_a_queue_that_nobody_looks_at_is_told_as_it_is_now(stage: Stage) -> None:
    stage.queue(paused=True)
    await stage.settle()
    await stage.forge.enqueue("send", {}, queue="mail")
    page = await scraped(stage.metrics)

    assert page.value("forge_queue_pending_jobs", **MAILS) == 1
    assert page.value("forge_queue_held_jobs", **MAILS) == 1
    assert page.value("forge_queue_paused", **MAILS) == 1
    await stage.forge.enqueue("send", {}, queue="mail")
    assert (await scraped(stage.metrics)).value("forge_queue_pending_jobs", **MAILS) == 2


async def test_only_workers_that_may_claim_are_live(stage: Stage) -> None:
    stage.queue()
    await stage.settle()
    named = {"host": "here", "pid": 1, "version": "1", "queues": ("mail",), "kinds": (), "concurrency": 1}
    for number, draining in enumerate((False, True), 1):
        info = WorkerInfo(id=number, label=f"worker-{number}", **named)  # type: ignore[arg-type]
        await stage.forge.storage.workers.register(info)
        await stage.forge.storage.workers.beat(number)
        if draining:
            await stage.forge.storage.workers.drain(number)

    assert (await scraped(stage.metrics)).value("forge_queue_live_workers", **MAILS) == 1


async def test_a_cron_is_told_while_no_worker_could_fire_it(stage: Stage) -> None:
    stage.queue()
    await stage.settle()
    nightly = Key(CRON, "default", "nightly")
    stage.cron(schedule="0 3 * * *", job={"queue": "mail", "kind": "report"})
    await stage.settle(nightly)
    (cron,) = await stage.forge.crons.list()
    page = await scraped(stage.metrics)

    assert page.value("forge_cron_enabled", cron=cron.name) == 1
    assert cron.next_fire_at is not None, "a cron has its first time from when it is set"
    due = page.value("forge_cron_next_fire_timestamp_seconds", cron=cron.name)
    assert due == cron.next_fire_at.timestamp()


async def test_of_two_objects_with_one_queue_its_owner_tells(stage: Stage) -> None:
    other = Key(QUEUE, "default", "other")
    stage.queue()
    await stage.settle()
    stage.queue("other", queueName="mail")
    await stage.settle(other)
    page = await scraped(stage.metrics)

    assert {each.labels["pool"] for each in page.samples if "queue" in each.labels} == {"default/mail"}


async def test_series_of_an_object_that_is_gone_go(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    assert (await scraped(stage.metrics)).of_the_database()
    stage.api.remove(QUEUES, "mail")
    await stage.settle()
    page = await scraped(stage.metrics)

    assert [each for each in page.samples if "pool" in each.labels] == []


async def test_without_the_database_no_number_of_a_queue_is_told(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    await stage.link.close()
    stage.link._url = "postgresql://forge:secret@127.0.0.1:1/forge"
    page = await scraped(stage.metrics)

    assert page.of_the_database() == set()
    assert stage.link.is_up is False


async def test_who_does_not_lead_tells_no_number_of_a_queue(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    stage.metrics.database = reader(stage, holds=False).read

    assert (await scraped(stage.metrics)).of_the_database() == set()


async def test_a_scrape_does_not_wait_for_a_database_that_does_not_answer(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()

    async def never() -> None:
        await asyncio.Event().wait()

    stage.metrics.database = never
    stage.metrics._patience = 0.0
    page = await scraped(stage.metrics)

    assert page.of_the_database() == set()
    assert page.value("forge_operator_db_up") is not None


async def test_scrapes_share_a_look_with_the_ticker(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    first = await stage.facts.read(0.0)
    stage.metrics.database = DatabaseMetrics(stage.facts, stage.reconciler.known).read
    await scraped(stage.metrics)

    assert await stage.facts.read(0.0) is first


async def test_a_decision_is_told_with_its_reason_and_its_inputs(stage: Stage) -> None:
    stage.queue(workers=workers(autoscaling=ASLEEP))
    await stage.settle()
    await stage.forge.enqueue_many("send", [{}] * 3, queue="mail")
    await stage.look()
    page, pool = await scraped(stage.metrics), {"pool": "default/mail"}

    decided = {"reason": "BoundByWork", "limited": "WithinRange"}
    found = [each.labels for each in page.samples if each.name == "forge_autoscaler_decision_info"]
    assert [each["pool"] for each in found] == ["default/mail"] and found[0].keys() == {*pool, *decided}
    assert page.value("forge_autoscaler_desired_replicas", **pool) == 1
    assert page.value("forge_autoscaler_wanted_replicas", **pool) == 1
    assert page.value("forge_autoscaler_backlog_jobs", **pool) == 3
    assert page.value("forge_autoscaler_due_soon_jobs", **pool) == 0
    assert page.value("forge_autoscaler_service_seconds", **pool) == 1
    assert page.value("forge_autoscaler_arrivals_per_second", **pool) is not None


async def test_fixed_replicas_are_a_decision_without_inputs(stage: Stage) -> None:
    stage.queue(workers=workers(replicas=2))
    await stage.settle()
    page, pool = await scraped(stage.metrics), {"pool": "default/mail"}

    labels = {"reason": "FixedReplicas", "limited": "WithinRange"}
    assert page.value("forge_autoscaler_decision_info", **pool, **labels) == 1
    assert page.value("forge_autoscaler_desired_replicas", **pool) == 2
    assert page.value("forge_operator_pool_ready_replicas", **pool) == 2
    assert page.value("forge_autoscaler_arrivals_per_second", **pool) is None


async def test_where_nothing_is_decided_any_more_no_decision_is_told(stage: Stage) -> None:
    stage.queue(workers=workers())
    await stage.settle()
    stage.api.edit(QUEUES, "mail", {"metadata": {"annotations": {"forge-jobs.dev/paused": "true"}}})
    await stage.look(MAIL)
    page = await scraped(stage.metrics)

    assert not {each.name for each in page.samples if each.name.startswith("forge_autoscaler_")}
    assert page.value("forge_queue_pending_jobs", **MAILS) == 0, "its queue is told all the same"


async def test_a_decision_that_nobody_renews_is_told_no_more() -> None:
    now = 100.0
    metrics = OperatorMetrics(clock=lambda: now)
    metrics.database = nothing
    metrics.decided("default/mail", ScalingDecision(replicas=2, wanted=2, reason=ScalingReason.FIXED))
    now += 179
    assert (await scraped(metrics)).value("forge_autoscaler_desired_replicas", pool="default/mail") == 2
    now += 2

    assert (await scraped(metrics)).of_the_database() == set()


async def nothing() -> Sequence[Metric] | None:
    return []


def test_what_workers_tell_too_has_the_same_name_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| gauge \| [^|]*° \| (.*) \|$", DOCUMENT.read_text(), re.MULTILINE)
    told = [(each.name, each.documentation) for each in (*queue_gauges(), *cron_gauges())]

    of_the_operator_alone = (
        "forge_queue_held_jobs",
        "forge_queue_unhandled_jobs",
        "forge_queue_unhandled_due_jobs",
    )
    assert [each for each in told if each[0] not in of_the_operator_alone] == rows

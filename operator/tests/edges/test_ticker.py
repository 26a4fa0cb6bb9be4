"""Who is asleep is woken at once, and a sleeping operator costs next to nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs import CronConfig, QueueConfig, SchemaOutdated, StorageUnavailable, WorkerInfo
from forge_jobs.client import watch
from forge_jobs.client.queues import Queues
from forge_jobs.model import Version, VersionState
from forge_operator.cluster.api import DEPLOYMENTS, PODS, QUEUES, Kube
from forge_operator.cluster.reader import ClusterReader
from forge_operator.database.facts import FactsReader
from forge_operator.database.link import DatabaseLink, unknown
from forge_operator.loop.ticker import left_over
from forge_operator.state.keys import Key
from tests.edges.api_server import ApiServer, Refused
from tests.edges.stage import MAIL, Stage, staged, workers
from tests.edges.until import until

ASLEEP = {"minReplicas": 0, "maxReplicas": 4, "idleSeconds": 0}


@pytest.fixture
async def stage(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    """An operator whose one pool sleeps."""
    async with staged(api, kube, url) as found:
        found.queue(workers=workers(autoscaling=ASLEEP))
        async with asyncio.timeout(20):
            while MAIL not in found.reconciler.asleep():
                await found.settle()
        found.added.clear()
        yield found


async def test_a_sleeping_pool_is_woken_by_an_enqueue(
    stage: Stage, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_EVERY", 3600.0)  # it must hear, not see
    watching = asyncio.create_task(stage.ticker._watch())
    connection = await asyncpg.connect(url)
    try:
        await until(lambda: connection.fetchval("SELECT count(*) FROM forge_jobs.idle"))
        await stage.forge.enqueue("send", {}, queue="mail")
        await until(lambda: MAIL in stage.added)
        assert await stage.look() is not None
        assert stage.pods() == {"1": 1}
    finally:
        await connection.close()
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


async def test_a_pool_whose_last_pod_is_on_its_way_out_is_asleep(stage: Stage) -> None:
    (deployment,) = stage.api.all(DEPLOYMENTS)
    going = {"name": "going", "labels": deployment["metadata"]["labels"]}
    stage.api.put(PODS, {"metadata": {**going, "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    await stage.look()

    assert MAIL in stage.reconciler.asleep()


async def test_a_job_that_is_due_soon_wakes_a_sleeping_pool(stage: Stage) -> None:
    await stage.forge.enqueue("send", {}, queue="mail", delay=3600)
    await stage.ticker.tick()
    assert stage.added == []
    await stage.forge.enqueue("send", {}, queue="mail", delay=5)
    await stage.ticker.tick()

    assert stage.added == [MAIL]


async def test_jobs_and_crons_that_nobody_has_a_handler_for_wake_nobody_until_a_version_comes_that_has(
    stage: Stage,
) -> None:
    storage = stage.forge.storage
    await storage.crons.set(CronConfig("nightly", "0 3 * * *", "count", queue="mail"))
    await stage.forge.enqueue("count", {}, queue="mail")
    await stage.forge.enqueue("count", {}, queue="mail", delay=5)
    await stage.ticker.tick()
    assert stage.added == []
    await stage.settle()
    assert stage.pods() == {"1": 0}
    assert stage.conditions()["KindsHandled"] == ("False", "UnhandledKinds")
    assert stage.message("KindsHandled") == "No worker of 'mail' has a handler for 'count'."

    stage.kinds = ("send", "count")
    stage.queue(workers=workers("2", autoscaling=ASLEEP))
    await stage.settle()
    await stage.ticker.tick()

    assert stage.pods()["2"] == 1
    assert stage.added == [MAIL]
    assert stage.conditions()["KindsHandled"] == ("True", "AllHandled")


async def test_a_version_that_sleeps_is_woken_by_any_job_while_it_is_not_known_what_it_handles(
    stage: Stage, url: str
) -> None:
    await stage.forge.enqueue("count", {}, queue="mail")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("UPDATE forge_jobs.worker_version SET kinds = NULL, queues = NULL")
    finally:
        await connection.close()
    await stage.ticker.tick()
    assert stage.added == [MAIL]

    await stage.look()

    assert stage.pods() == {"1": 1}
    assert [each.queues for each in await stage.forge.versions.all()] == [("mail",)]


async def test_a_cron_that_no_worker_has_seen_wakes_a_sleeping_pool_until_its_time_is_found(
    stage: Stage,
) -> None:
    storage = stage.forge.storage
    await storage.crons.set(CronConfig("nightly", "0 3 * * *", "report", queue="mail"))
    await stage.ticker.tick()
    assert stage.added == [MAIL]

    stage.added.clear()
    epoch = await storage.leadership.lead(1, timedelta(minutes=1))
    assert epoch is not None
    await storage.fires.seed("nightly", await storage.now() + timedelta(hours=6), epoch=epoch)
    await stage.ticker.tick()
    assert stage.added == []


async def test_many_pools_are_read_with_a_few_calls(stage: Stage) -> None:
    for number in range(20):
        stage.queue(f"q{number}", concurrency={"limit": number + 1})
    await stage.ticker.resync()
    keys, stage.api.requests[:] = list(stage.added), []
    await stage.ticker.resync()
    stage.reconciler._fresh = 60
    for key in keys:
        await stage.reconciler.look(key)

    reads = [each for each in stage.api.requests if each.method == "GET"]
    assert len(keys) == 21
    assert len(reads) == 5, "one list for each kind of object"


async def test_many_pools_are_read_with_a_few_calls_though_each_waits_for_long(
    api: ApiServer, kube: Kube, url: str
) -> None:
    now, waiting = time.monotonic(), 20
    async with staged(api, kube, url, fresh=4, busy=lambda: waiting, clock=lambda: now) as stage:
        for number in range(20):
            stage.queue(f"q{number}", concurrency={"limit": number + 1})
        await stage.ticker.resync()
        for key in stage.added:
            await stage.look(key)

        async def reads(key: Key) -> int:
            api.requests.clear()
            await stage.reconciler.look(key)
            return sum(each.method == "GET" for each in api.requests)

        counted = []
        for key in stage.added:
            now += 1
            counted.append(await reads(key))
        assert set(counted) == {0, 5}, "one list for each kind of object, or nothing"
        assert counted.count(5) == 4

        now, waiting = now + 10, 1
        assert await reads(stage.added[0]) == 4, "it and its pool, for one that is alone"


async def test_an_api_server_that_fails_is_asked_for_everything_once_by_all_who_wait(
    api: ApiServer, kube: Kube
) -> None:
    now = time.monotonic()
    reader = ClusterReader(kube, clock=lambda: now)
    api.judge = lambda request: Refused(500, "InternalError", "etcd is away")
    await asyncio.gather(*(reader.refresh(4) for _ in range(3)))
    asked = len(api.requests)

    now += 3
    await reader.refresh(4)
    assert len(api.requests) == asked

    now += 2
    api.judge = lambda request: None
    await reader.refresh(4)
    assert len(api.requests) > asked


async def test_what_was_read_before_a_change_does_not_count(stage: Stage) -> None:
    stage.reconciler._fresh = 60
    await stage.ticker.resync()
    found = stage.api.edit(QUEUES, "mail", {"spec": {"concurrency": {"limit": 2}}})
    await stage.look()

    assert (await stage.forge.queues.get("mail")).concurrency == 2
    assert found["metadata"]["generation"] == 2
    assert len(stage.api.all(DEPLOYMENTS)) == 1


async def test_the_facts_are_of_no_moment_before_their_queues(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    listed = Queues.list

    async def list_queues(queues: Queues) -> Sequence[QueueConfig]:
        found = await listed(queues)
        seen.append(await stage.forge.storage.now())
        return found

    monkeypatch.setattr(Queues, "list", list_queues)
    facts = await stage.facts.read(time.monotonic())

    assert facts.now > seen[-1]


async def test_a_database_that_is_away_is_asked_once_by_all_who_wait() -> None:
    link = DatabaseLink("postgresql://forge:secret@127.0.0.1:1/forge", "forge_jobs", "operator-1")
    reader = FactsReader(link)
    since = time.monotonic()
    answers = await asyncio.gather(*(reader.read(since) for _ in range(50)), return_exceptions=True)

    assert {type(each) for each in answers} == {StorageUnavailable}
    assert len({id(each) for each in answers}) == 1
    told = unknown(answers[0])  # type: ignore[arg-type]
    assert told.reason == "ConnectionFailed"
    assert "secret" not in told.message


async def test_a_wrong_password_is_said_to_be_one(url: str, api: ApiServer) -> None:
    link = DatabaseLink(url.replace("postgres@", "nobody_of_this_name@"), "forge_jobs", "operator-1")
    with pytest.raises(StorageUnavailable) as caught:
        await link.forge()

    assert unknown(caught.value).reason == "AuthFailed"


async def test_a_database_without_the_schema_is_said_to_be_too_old(url: str) -> None:
    link = DatabaseLink(url, "another_schema", "operator-1")
    with pytest.raises(SchemaOutdated) as caught:
        await link.forge()

    assert unknown(caught.value).reason == "SchemaTooOld"
    await link.close()


async def versions_of_a_pool_that_is_no_more(stage: Stage, url: str, *, minutes: int) -> None:
    """One that is current and one that is retired are known for so long."""
    epoch = await stage.link.epoch()
    for id_, state in (("old00001", VersionState.CURRENT), ("old00002", VersionState.RETIRED)):
        await stage.forge.versions.put(Version("gone", id_, id_, id_, state), epoch=epoch)
    await aged(url, "old00001", minutes)
    await aged(url, "old00002", minutes)


async def aged(url: str, version_id: str, minutes: int) -> None:
    """The version was made so long ago."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "UPDATE forge_jobs.worker_version SET created_at = now() - make_interval(mins => $2) WHERE id = $1",
            version_id,
            minutes,
        )
    finally:
        await connection.close()


async def test_versions_of_pools_that_are_no_more_are_forgotten_open_ones_too(stage: Stage, url: str) -> None:
    await versions_of_a_pool_that_is_no_more(stage, url, minutes=6)
    await stage.ticker.resync()

    assert await stage.states() == {"1": "current"}


async def test_a_pool_with_a_version_that_may_be_new_is_not_forgotten(stage: Stage, url: str) -> None:
    await versions_of_a_pool_that_is_no_more(stage, url, minutes=6)
    await aged(url, "old00002", 4)
    await stage.ticker.resync()

    assert await stage.states() == {"1": "current", "old00001": "current", "old00002": "retired"}


async def test_a_pool_whose_last_workers_still_stop_is_not_forgotten(stage: Stage, url: str) -> None:
    await versions_of_a_pool_that_is_no_more(stage, url, minutes=6)
    late = WorkerInfo(
        7, "late", "late", 1, "1", ("mail",), (), 1, pool="gone", version_id="old00002", pod="late"
    )
    await stage.forge.storage.workers.register(late)
    facts = await FactsReader(stage.link).read(time.monotonic())
    overview = await stage.ticker._cluster.overview()
    assert left_over(overview, facts) == []

    # nor when it registers after the look
    await stage.reconciler.forget(["gone"])
    assert len(await stage.forge.versions.all("gone")) == 2
    await stage.forge.storage.workers.deregister(late.id)
    await stage.ticker.resync()
    assert await stage.states() == {"1": "current"}


async def test_who_watches_some_namespaces_forgets_no_pool(api: ApiServer, kube: Kube, url: str) -> None:
    async with staged(api, kube, url, namespaces=("default",)) as stage:
        await versions_of_a_pool_that_is_no_more(stage, url, minutes=6)
        await stage.ticker.resync()

        assert len(await stage.forge.versions.all("gone")) == 2


@pytest.mark.parametrize("is_made_again", [False, True])
async def test_who_watches_some_namespaces_forgets_the_pools_that_it_saw_go(
    api: ApiServer, kube: Kube, url: str, is_made_again: bool
) -> None:
    async with staged(api, kube, url, namespaces=("default",)) as stage:
        stage.queue(workers=workers())
        await stage.settle()
        [old] = await stage.forge.versions.all()
        api.remove(QUEUES, "mail")
        if is_made_again:
            stage.queue(workers=workers())
        await stage.settle()
        await stage.ticker.resync()
        assert old.id in [each.id for each in await stage.forge.versions.all()], "it may be too early"

        await aged(url, old.id, 6)
        await stage.ticker.resync()

        assert old.id not in [each.id for each in await stage.forge.versions.all()]
        assert len(await stage.forge.versions.all()) == is_made_again

"""A version that has a share is judged by what the database counted and the API server says, whoever looks."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from forge_jobs.model import TrackRecord, Version
from forge_jobs.model.track_record import bucket
from forge_operator.cluster.api import PODS, Kube
from forge_operator.state.settings import OperatorSettings
from tests.edges.api_server import ApiServer
from tests.edges.stage import Stage, staged, workers

ROLLOUT = {
    "strategy": "Progressive",
    "steps": [{"weightPercent": 50, "pauseSeconds": 60}],
    "minReadySeconds": 0,
    "abort": {"minSamples": 10, "handBackSeconds": 0},
}
GOOD = TrackRecord(succeeded=100, durations={bucket(1.0): 100})


@pytest.fixture
async def stage(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    """An operator, a version 1 that has done something, and a version 2 that has just got half of the slots."""
    async with staged(api, kube, url) as stage:
        stage.queue(workers=workers("1", rollout=ROLLOUT))
        await stage.settle()
        await says(stage, "1", GOOD)
        stage.queue(workers=workers("2", rollout=ROLLOUT))
        while (await stage.states()).get("2") != "ramping":
            await stage.look()
            stage.api.start_pods()
            await stage.beat()
            await says(stage, "1", GOOD)
        yield stage


async def version(stage: Stage, text: str) -> Version:
    [found] = [each for each in await stage.forge.versions.all() if each.version == text]
    return found


async def worker_of(stage: Stage, text: str) -> int:
    """Return the id of a worker of the version."""
    version_id = (await version(stage, text)).id
    return next(each.id for each in stage.workers.values() if each.version_id == version_id)


async def says(stage: Stage, text: str, record: TrackRecord) -> None:
    """A worker of the version has done this since it started, and says so."""
    await stage.forge.storage.workers.beat(await worker_of(stage, text), record=record)


async def in_the_database(url: str, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def passes(url: str, seconds: int) -> None:
    """The version has its share for longer."""
    await in_the_database(
        url,
        """
        UPDATE forge_jobs.worker_version
        SET state_changed_at = state_changed_at - make_interval(secs => $1),
            ramping_since = ramping_since - make_interval(secs => $1)
        WHERE state = 'ramping'
        """,
        seconds,
    )


async def went_back(stage: Stage, how: str) -> None:
    await stage.look()
    found = await version(stage, "2")
    assert str(found.state) == "failed"
    assert found.failure_message is not None and how in found.failure_message
    assert stage.conditions()["Progressing"] == ("False", "RolloutAborted")
    assert stage.message("Progressing") == found.failure_message
    assert "RolloutAborted" in stage.reasons()
    assert (await version(stage, "1")).is_open


async def test_a_version_with_enough_good_jobs_goes_on_when_its_step_is_over(stage: Stage, url: str) -> None:
    await says(stage, "2", TrackRecord(succeeded=10, durations={bucket(1.0): 10}))
    await stage.look()
    assert (await stage.states())["2"] == "ramping"

    await passes(url, 61)
    await stage.look()
    stage.api.start_pods()
    await stage.look()

    assert (await stage.states())["2"] == "current"


async def test_a_version_that_gets_no_jobs_is_held_and_says_so(stage: Stage, url: str) -> None:
    await passes(url, 100_000)

    await stage.look()

    assert (await stage.states())["2"] == "ramping"
    assert stage.conditions()["Progressing"] == ("True", "Inconclusive")
    assert "has run no job to be judged by" in stage.message("Progressing")
    assert stage.reasons().count("Inconclusive") == 1


async def test_jobs_that_were_lost_with_their_workers_count_as_failed(stage: Stage, url: str) -> None:
    me = await worker_of(stage, "2")
    for _ in range(10):
        await stage.forge.enqueue("work", queue="mail")
    queue = next(each for each in await stage.forge.queues.list() if each.name == "mail")
    await stage.forge.storage.claims.claim(queue.id, me, limit=10)

    await stage.forge.storage.workers.deregister(me)

    await went_back(stage, "100 % of 10 jobs")
    assert "10 lost with their worker" in stage.message("Progressing")


async def test_jobs_that_hang_send_a_version_back_and_its_pods_are_stopped(stage: Stage, url: str) -> None:
    me = await worker_of(stage, "2")
    for _ in range(6):
        await stage.forge.enqueue("work", queue="mail")
    queue = next(each for each in await stage.forge.queues.list() if each.name == "mail")
    await stage.forge.storage.claims.claim(queue.id, me, limit=6)
    await in_the_database(url, "UPDATE forge_jobs.claimed SET claimed_at = claimed_at - interval '30 s'")
    await stage.look()
    assert (await stage.states())["2"] == "ramping"

    await in_the_database(url, "UPDATE forge_jobs.claimed SET claimed_at = claimed_at - interval '61 s'")
    await went_back(stage, "6 of 6 running jobs")

    assert stage.pods()["2"] == 1
    await stage.look()
    assert stage.pods()["2"] == 0
    assert "HandedBack" in stage.reasons()


async def test_containers_that_are_killed_for_their_memory_send_a_version_back(stage: Stage) -> None:
    found = await version(stage, "2")
    [pod] = [each for each in stage.api.all(PODS) if found.id in each["metadata"]["labels"].values()]
    ended = {
        "exitCode": 137,
        "reason": "OOMKilled",
        "startedAt": "2100-01-01T00:00:00Z",
        "finishedAt": "2100-01-01T00:01:00Z",
    }
    container = {
        "name": "worker",
        "restartCount": 3,
        "state": {"waiting": {}},
        "lastState": {"terminated": ended},
    }
    stage.api.edit(PODS, pod["metadata"]["name"], {"status": {"containerStatuses": [container]}})

    await went_back(stage, "were OOMKilled 3 times")


async def test_another_operator_judges_by_the_same_numbers(
    stage: Stage, api: ApiServer, kube: Kube, url: str
) -> None:
    await says(stage, "1", TrackRecord(succeeded=120, durations={bucket(1.0): 120}))
    await says(stage, "2", TrackRecord(succeeded=12, durations={bucket(20.0): 12}))
    await passes(url, 61)

    async with staged(api, kube, url, settings=OperatorSettings()) as other:
        other.workers = stage.workers
        await went_back(other, "times as long as those of the previous version")

"""Two operators that watch the same namespace: one of them keeps an object, and the other leaves it alone."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from forge_jobs.testing.local_postgres import LocalPostgres
from forge_operator.cluster.api import CRONS, DEPLOYMENTS, EVENTS, QUEUES, Kube
from forge_operator.cluster.errors import KubeError
from forge_operator.cluster.events import EventRecorder
from forge_operator.loop.halt import OutOfDate
from forge_operator.loop.rivals import GONE_PATIENCE, PATIENCE, Rivals
from forge_operator.state.keys import CRON, Key
from tests.edges.api_server import ApiServer, Refused
from tests.edges.stage import MAIL, Stage, staged, workers
from tests.storage.databases import PostgresDatabase, lent

FIRST, SECOND = "default/forge-jobs-operator", "other/forge-jobs-operator"
THIRD = "third/forge-jobs-operator"
NIGHTLY = Key(CRON, "default", "nightly")


@dataclass
class Clock:
    """A clock that tests put ahead."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
async def other_url(postgres: LocalPostgres, clean_databases: list[PostgresDatabase]) -> AsyncIterator[str]:
    """The URL of the second operator's database."""
    async with lent(clean_databases, postgres.url()) as database:
        yield database.url


@pytest.fixture
async def first(api: ApiServer, kube: Kube, url: str) -> AsyncIterator[Stage]:
    """The operator that was there before."""
    async with staged(api, kube, url, identity=FIRST) as stage:
        yield stage


@pytest.fixture
def clock() -> Clock:
    """The second operator's clock."""
    return Clock()


@pytest.fixture
async def second(api: ApiServer, kube: Kube, other_url: str, clock: Clock) -> AsyncIterator[Stage]:
    """One that is installed later, for the same namespaces and with a database of its own."""
    async with staged(api, kube, other_url, identity=SECOND, clock=clock) as stage:
        yield stage


def said(api: ApiServer, key: Key = MAIL) -> tuple[object, object]:
    """Return who manages the object, and who would."""
    status = (api.get(QUEUES if key == MAIL else CRONS, key.name) or {}).get("status") or {}
    return status.get("operator"), status.get("rival")


async def test_the_first_operator_keeps_a_queue_and_the_second_changes_nothing_of_it(
    api: ApiServer, first: Stage, second: Stage, clock: Clock
) -> None:
    first.queue(workers=workers())
    await first.settle()
    before, conditions = api.all(DEPLOYMENTS), first.conditions()
    assert said(api) == (FIRST, None)

    for _ in range(3):
        await second.look()
    assert api.all(DEPLOYMENTS) == before
    assert said(api) == (FIRST, SECOND)
    assert first.reasons().count("AnotherOperator") == 1
    assert not await second.states()

    await first.settle()  # it lives, so it answers
    for _ in range(3):
        await second.look()
        clock.ahead += PATIENCE / 4
    assert said(api) == (FIRST, None)
    assert (api.all(DEPLOYMENTS), first.conditions()) == (before, conditions)
    clock.ahead += PATIENCE
    await second.look()
    assert said(api) == (FIRST, SECOND)
    await first.settle()
    assert said(api) == (FIRST, None)


async def test_the_first_operator_keeps_a_cron(api: ApiServer, first: Stage, second: Stage) -> None:
    first.queue()
    first.cron(schedule="0 3 * * *", job={"queue": "mail", "kind": "report"})
    await first.settle()
    await first.settle(NIGHTLY)
    await second.look(NIGHTLY)

    assert said(api, NIGHTLY) == (FIRST, SECOND)
    assert await second.forge.crons.list() == []


async def test_an_operator_that_is_not_installed_any_more_is_followed_after_ten_minutes_by_one_with_another_database(
    api: ApiServer, first: Stage, second: Stage, clock: Clock
) -> None:
    first.queue(workers=workers())
    await first.settle()
    await second.look()
    clock.ahead += PATIENCE - 60
    await second.look()
    assert said(api) == (FIRST, SECOND)

    clock.ahead += 60
    await second.settle()
    assert said(api) == (SECOND, None)
    assert "TakenOver" in second.reasons()
    [message] = [event["message"] for event in api.all(EVENTS) if event["reason"] == "TakenOver"]
    assert message.startswith(
        f"Operator {FIRST} is not installed any more: {SECOND} manages it now, in its own database."
    )
    assert f"If {FIRST} has another one, jobs that wait there get no workers" in message
    assert (await second.forge.queues.get("mail")).managed_by == "ForgeQueue default/mail"
    api.requests.clear()
    await first.look()
    assert said(api) == (SECOND, FIRST)


async def test_an_operator_that_is_not_installed_any_more_is_followed_soon_by_one_with_its_database(
    api: ApiServer, kube: Kube, url: str, first: Stage, clock: Clock
) -> None:
    first.queue(workers=workers())
    first.cron(schedule="0 3 * * *", job={"queue": "mail", "kind": "report"})
    for key in (MAIL, NIGHTLY):
        await first.settle(key)
    async with staged(api, kube, url, identity=SECOND, clock=clock) as second:
        for key in (MAIL, NIGHTLY):
            await second.look(key)
        clock.ahead += GONE_PATIENCE - 60
        for key in (MAIL, NIGHTLY):
            await second.look(key)
        assert (said(api), said(api, NIGHTLY)) == ((FIRST, SECOND),) * 2

        clock.ahead += 60
        for key in (MAIL, NIGHTLY):
            await second.settle(key)

    assert (said(api), said(api, NIGHTLY)) == ((SECOND, None),) * 2
    messages = {event["message"] for event in api.all(EVENTS) if event["reason"] == "TakenOver"}
    assert messages == {
        f"Operator {FIRST} is not installed any more: {SECOND} manages it now, in the same database."
    }


async def test_an_operator_that_is_installed_and_does_not_answer_keeps_its_objects(
    api: ApiServer, first: Stage, second: Stage, clock: Clock
) -> None:
    first.queue(workers=workers())
    await first.settle()
    api.put(DEPLOYMENTS, {"metadata": {"name": "forge-jobs-operator"}, "spec": {"replicas": 0}})
    for _ in range(40):
        await second.look()
        clock.ahead += 60

    assert said(api) == (FIRST, SECOND)
    assert not await second.states()
    assert "TakenOver" not in second.reasons()
    messages = [event["message"] for event in api.all(EVENTS) if event["reason"] == "AnotherOperator"]
    assert messages[-1].startswith(
        f"Operator {FIRST} manages this object and has not answered for ten minutes. Its Deployment is there"
    )

    api.remove(DEPLOYMENTS, "forge-jobs-operator")
    clock.ahead += PATIENCE
    await second.look()
    assert said(api) == (SECOND, None)


async def test_an_operator_of_which_nothing_may_be_read_is_followed_after_ten_minutes_of_silence(
    api: ApiServer, first: Stage, second: Stage, clock: Clock
) -> None:
    first.queue(workers=workers())
    await first.settle()
    api.put(DEPLOYMENTS, {"metadata": {"name": "forge-jobs-operator"}, "spec": {"replicas": 2}})
    api.judge = lambda request: (
        Refused(403, "Forbidden", "no")
        if request.path.endswith("/deployments/forge-jobs-operator/scale")
        else None
    )
    await second.look()
    clock.ahead += PATIENCE - 60
    await second.look()
    assert said(api) == (FIRST, SECOND)

    clock.ahead += 60
    await second.look()
    assert said(api) == (SECOND, None)
    [message] = [event["message"] for event in api.all(EVENTS) if event["reason"] == "TakenOver"]
    assert message.startswith(
        f"Operator {FIRST} has not answered for ten minutes: {SECOND} manages it now, in its own"
    )


async def test_nothing_is_taken_while_the_api_server_cannot_say_whether_the_other_operator_is_there(
    api: ApiServer, kube: Kube
) -> None:
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {}, "status": {"operator": FIRST}})
    clock = Clock()
    second = Rivals(kube, EventRecorder(kube, SECOND), SECOND, clock=clock)
    present = api.get(QUEUES, "mail")
    assert present is not None
    await second.ours(MAIL, present)
    api.judge = lambda request: Refused(503, "", "no") if request.path.endswith("/scale") else None
    clock.ahead += 2 * PATIENCE

    present = api.get(QUEUES, "mail")
    assert present is not None
    with pytest.raises(KubeError):
        await second.ours(MAIL, present)
    assert said(api) == (FIRST, SECOND)


async def test_only_one_of_two_operators_that_see_a_new_object_at_once_gets_it(
    api: ApiServer, kube: Kube
) -> None:
    found = api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {}})
    one, two = (Rivals(kube, EventRecorder(kube, name), name) for name in (FIRST, SECOND))

    assert await one.ours(MAIL, found)
    with pytest.raises(OutOfDate):
        await two.ours(MAIL, found)
    present = api.get(QUEUES, "mail")
    assert present is not None
    assert await two.ours(MAIL, present) is None
    assert said(api) == (FIRST, SECOND)


async def test_one_of_two_operators_that_wait_for_an_object_gets_it(api: ApiServer, kube: Kube) -> None:
    api.put(QUEUES, {"metadata": {"name": "mail"}, "spec": {}, "status": {"operator": FIRST}})
    clock = Clock()
    others = [Rivals(kube, EventRecorder(kube, name), name, clock=clock) for name in (SECOND, THIRD)]

    for _ in range(12):
        for other in others:
            present = api.get(QUEUES, "mail")
            assert present is not None
            await other.ours(MAIL, present)
            clock.ahead += 30
    assert said(api) in {(SECOND, None), (SECOND, THIRD)}


async def test_an_operator_that_waits_for_an_object_and_is_gone_keeps_it_from_nobody(
    api: ApiServer, kube: Kube
) -> None:
    api.put(
        QUEUES, {"metadata": {"name": "mail"}, "spec": {}, "status": {"operator": FIRST, "rival": SECOND}}
    )
    clock = Clock()
    third = Rivals(kube, EventRecorder(kube, THIRD), THIRD, clock=clock)

    for _ in range(32):
        present = api.get(QUEUES, "mail")
        assert present is not None
        await third.ours(MAIL, present)
        clock.ahead += 60
    assert said(api) == (THIRD, None)

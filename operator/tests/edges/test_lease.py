"""One of several candidates leads; the next one does when it is gone, and never two at once."""

import asyncio
import math
import time
from contextlib import suppress

from forge_operator.cluster.api import LEASES, Kube
from forge_operator.cluster.lease import Candidate, LeaseTimes
from tests.edges.api_server import ApiServer, Refused
from tests.edges.until import until

FAST = LeaseTimes(duration=0.6, deadline=0.4, retry=0.05)


def candidate(kube: Kube, name: str) -> Candidate:
    return Candidate(kube, "default", "operator", name, times=FAST)


async def test_the_first_takes_the_lease_and_the_second_waits(api: ApiServer, kube: Kube) -> None:
    first, second = candidate(kube, "first"), candidate(kube, "second")
    await first.take()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.take())
    renewals = FAST.duration / FAST.retry * 1.5  # without them it would have run out
    await until(lambda: sum(each.method == "PUT" for each in api.requests) > renewals)

    assert first.holds and not waiting.done()
    assert second.answered
    lease = api.get(LEASES, "operator")
    assert lease is not None and lease["spec"]["holderIdentity"] == "first"
    for task in (keeping, waiting):
        task.cancel()


async def test_a_released_lease_is_taken_over_at_once(api: ApiServer, kube: Kube) -> None:
    first, second = candidate(kube, "first"), candidate(kube, "second")
    await first.take()
    await first.release()
    assert not first.holds
    await asyncio.wait_for(second.take(), FAST.duration / 2)

    lease = api.get(LEASES, "operator")
    assert lease is not None and lease["spec"]["leaseTransitions"] == 1


async def test_who_renews_the_lease_has_held_it_since_any_moment_before(api: ApiServer, kube: Kube) -> None:
    first = candidate(kube, "first")
    assert not first.has_held_since(-math.inf)
    await first.take()
    moment = time.monotonic()
    assert first.has_held_since(-math.inf) and not first.has_held_since(moment)

    keeping = asyncio.create_task(first.keep())
    await until(lambda: first.has_held_since(moment))
    keeping.cancel()
    await first.release()
    assert not first.has_held_since(-math.inf)


async def test_a_lease_that_nobody_renews_runs_out(api: ApiServer, kube: Kube) -> None:
    first, second = candidate(kube, "first"), candidate(kube, "second")
    await first.take()
    await asyncio.wait_for(second.take(), 5)

    assert not first.holds, "it gave up before another one could take it"


async def test_who_cannot_renew_gives_up_before_another_may_take_it(api: ApiServer, kube: Kube) -> None:
    first = candidate(kube, "first")
    await first.take()
    api.judge = lambda request: Refused(503, "ServiceUnavailable", "away")
    async with asyncio.timeout(FAST.duration):
        await first.keep()

    assert not first.holds


async def test_a_leader_that_was_frozen_does_not_hold_the_lease_when_it_thaws(
    api: ApiServer, kube: Kube
) -> None:
    first, second = candidate(kube, "first"), candidate(kube, "second")
    await first.take()
    await second.take()
    keeping = asyncio.create_task(second.keep())

    await asyncio.wait_for(first.keep(), 5)
    assert not first.holds and second.holds
    await first.release()
    lease = api.get(LEASES, "operator")
    assert lease is not None and lease["spec"]["holderIdentity"] == "second"
    keeping.cancel()


async def test_never_do_two_of_many_hold_it(api: ApiServer, kube: Kube) -> None:
    everyone = [candidate(kube, str(number)) for number in range(5)]
    led: list[str] = []

    async def run(each: Candidate) -> None:
        await each.take()
        led.append(each.identity)
        assert [other for other in everyone if other.holds] == [each]
        await each.release()

    async with asyncio.timeout(10):
        await asyncio.gather(*(run(each) for each in everyone))
    assert sorted(led) == ["0", "1", "2", "3", "4"]


async def test_a_server_away_at_the_start_is_waited_for(api: ApiServer, kube: Kube) -> None:
    api.judge = lambda request: Refused(503, "ServiceUnavailable", "away")
    first = candidate(kube, "first")
    taking = asyncio.create_task(first.take())
    await until(lambda: len(api.requests) > 2)
    assert not first.answered
    api.judge = lambda request: None
    await asyncio.wait_for(taking, 5)
    with suppress(asyncio.CancelledError):
        assert first.holds

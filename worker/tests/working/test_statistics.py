"""What a worker has run is in the statistics, by queue and kind, whatever becomes of the worker in the end."""

from datetime import timedelta

import pytest

from forge_jobs import Dead, Forge, InvalidInput, Worker
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.job_series import job_series
from forge_jobs.worker import minutes


async def test_what_a_worker_ran_is_in_the_statistics_when_it_has_ended(forge: Forge) -> None:
    @forge.handler(queue="mail")
    async def send(number: int) -> None:
        if number == 3:
            raise Dead("no such address")

    @forge.handler
    async def bill() -> None: ...

    await forge.ensure_queues("mail")
    await send.enqueue_many([{"number": number} for number in range(5)])
    await bill.enqueue()
    await Worker(forge, queues=["default", "mail"]).run(until_empty=True)

    found = {(one.queue, one.kind): one for one in await forge.statistics.list(timedelta(hours=1))}

    assert set(found) == {("default", "bill"), ("mail", "send")}
    assert found["mail", "send"].outcomes == {"done": 4, "dead": 1}
    assert found["mail", "send"].waits.count == found["mail", "send"].runs.count == 5
    assert found["default", "bill"].outcomes == {"done": 1}


async def test_several_workers_of_a_program_count_each_job_once(forge: Forge) -> None:
    @forge.handler
    async def work() -> None: ...

    for _ in range(3):
        await work.enqueue_many([{}] * 10)
        await Worker(forge, queues=["default"]).run(until_empty=True)

    [found] = await forge.statistics.list(3600, kind="work")

    assert found.outcomes == {"done": 30} and found.runs.count == 30


async def test_what_was_taken_is_not_taken_again(forge: Forge) -> None:
    @forge.handler
    async def work() -> None: ...

    await work.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert job_series(forge.telemetry) is job_series(forge.telemetry)
    assert job_series(forge.telemetry).take() == {}


async def test_times_that_there_are_not_are_refused(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="since is 0, allowed is a duration of more than zero"):
        await forge.statistics.list(0)
    with pytest.raises(InvalidInput, match="every is 90, allowed is a number of whole minutes"):
        await forge.statistics.list(3600, every=90)
    with pytest.raises(InvalidInput, match="The queue is"):
        await forge.statistics.list(3600, queue="two words")


async def test_a_minute_that_the_database_may_have_had_and_forgotten_is_not_handed_in(forge: Forge) -> None:
    kept = minutes.Minutes(forge.storage.statistics, forge.telemetry, job_series(forge.telemetry))
    for number, ago in ((1, 3600), (2, 60)):
        kept._unsent.append(minutes._Taken(number, uptime() - ago, {("default", "work"): {"done": number}}))

    await kept._send()

    [found] = await forge.statistics.list(7200)
    assert (found.outcomes, len(kept._unsent)) == ({"done": 2}, 0)

"""A serial kind runs one job at a time, whether a cron or a program enqueues it, in real processes."""

from forge_jobs import Forge
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet


async def test_jobs_of_a_cron_never_run_beside_enqueued_ones_of_their_group(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    @forge.handler(group="serial")
    async def alone(seconds: float) -> None:
        """The workers have another one, which keeps a ledger."""

    for _ in range(2):
        await workers.start("--concurrency", "10")
    await eventually(lambda: " leads" in workers.log(0) + workers.log(1))
    cron = await forge.crons.set("often", "* * * * * *", "alone", payload={"seconds": 0.3})
    for _ in range(8):
        await alone.enqueue(seconds=0.3)

    await eventually(lambda: len(ledger.of("end")) >= 11)

    assert [group.name for group in cron.group] == ["serial"]
    assert ledger.most_at_once() == 1

"""Four jobs wait, each for another reason. Whoever asks why is told in sentences, and they go on when that is over.

python examples/why.py
"""

import asyncio
from datetime import timedelta

from forge_jobs import Enqueued, Forge, KeyLimit, State, Worker

forge = Forge("sqlite://:memory:")
shelves_are_free = asyncio.Event()


@forge.handler(group="shelf")  # one at a time
async def pack(order: int) -> None:
    """Pack an order, as soon as there is room on the shelf."""
    await shelves_are_free.wait()


@forge.handler(limits=KeyLimit("model", by="customer"))
async def ask(customer: str) -> None:
    """Ask a model that counts the questions of each customer."""


@forge.handler(queue="reports", fair_by="customer")
async def report(customer: str) -> None:
    """Write a report; customers take turns."""
    await shelves_are_free.wait()


@forge.handler(queue="mails")
async def mail(to: str) -> None:
    """Send a mail."""


async def become(job: Enqueued, state: State) -> None:
    """Return when the job is in this state."""
    while (await forge.jobs.get(job)).state is not state:
        await asyncio.sleep(0.01)


async def ask_why(job: Enqueued, state: State) -> None:
    """Print why the job waits, once it is in this state."""
    await become(job, state)
    print(f"{(await forge.jobs.get(job)).kind} is {state.value}:")
    for reason in (await forge.jobs.why(job)).reasons:
        print(f"  {reason}")


async def main() -> None:
    """Enqueue what has to wait, ask why, and let it go on."""
    async with forge:
        await forge.ensure_queues("default")
        await forge.queues.set("reports", concurrency=1)
        await forge.queues.set("mails")
        await forge.queues.pause("mails", until=timedelta(hours=2), why="the mail host moves")
        await forge.limits.set("model", 1, per=timedelta(hours=1))  # a question an hour for each customer
        worker = Worker(forge, queues=["default", "reports", "mails"], concurrency=4)
        working = asyncio.create_task(worker.run())

        jobs = [await pack.enqueue(order=1)]
        await become(jobs[-1], State.IN_PROGRESS)
        jobs += [await pack.enqueue(order=2)]
        await ask_why(jobs[-1], State.BLOCKED)
        jobs += [await ask.enqueue(customer="ann")]
        await forge.wait(jobs[-1], timeout=30)
        jobs += [await ask.enqueue(customer="ann")]
        await ask_why(jobs[-1], State.SCHEDULED)
        jobs += [await report.enqueue(customer="ann")]
        await become(jobs[-1], State.IN_PROGRESS)
        jobs += await report.enqueue_many([{"customer": name} for name in ("bob", "ann", "ann")])
        await ask_why(jobs[-1], State.PENDING)
        jobs += [await mail.enqueue(to="eve")]
        await ask_why(jobs[-1], State.PENDING)

        shelves_are_free.set()
        await forge.limits.reset("model", "ann")
        await forge.queues.resume("mails")
        await forge.wait_all(jobs, timeout=30)
        print(f"{len(jobs)} jobs are done")
        worker.stop()
        await working


if __name__ == "__main__":
    asyncio.run(main())

"""A customer's address was wrong: some jobs are dead. They are found by a tag, one is run again with another address, and
the others are retried, so many a second.

python examples/redrive.py
"""

import asyncio

from forge_jobs import Forge, Worker

forge = Forge("sqlite://:memory:")
known = {"ada"}


@forge.handler(max_attempts=1, tags=["letters"])
async def deliver(to: str) -> None:
    """Deliver a letter to somebody who is known."""
    if to not in known:
        raise LookupError(f"nobody knows {to}")


async def main() -> None:
    """Enqueue letters, lose some, and get them delivered."""
    async with forge:
        worker = Worker(forge, queues=["default"])
        first = await deliver.options(tags=["letters", "customer:1"]).enqueue(to="adda")
        await deliver.options(tags=["letters", "customer:2"]).enqueue(to="bob")
        await deliver.options(tags=["letters", "customer:2"]).enqueue(to="cyd")
        await worker.run(until_empty=True)
        print("dead:", await forge.jobs.count(state="dead", tags=["letters"]))

        again = await forge.jobs.rerun(first, {"to": "ada"})
        known.update({"bob", "cyd"})
        operation = await forge.operations.start("retried", tags=["customer:2"], rate=1_000, by="examples")
        print(f"{operation.asked_by} asks for {operation.meant} jobs to be {operation.move}")
        operation = await forge.operations.finish(operation.id)
        print(f"operation {operation.id} is {operation.state}: {operation.changed} jobs")

        await worker.run(until_empty=True)
        print(f"job {again.id} runs job {(await forge.jobs.get(again)).rerun_of} again")
        print("done:", await forge.jobs.count(state="done", tags=["letters"]))


if __name__ == "__main__":
    asyncio.run(main())

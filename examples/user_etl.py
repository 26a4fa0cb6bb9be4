"""Three look-ups at once, and one job that gets what all of them returned."""

import asyncio

from forge_jobs import Flow, Forge, Worker

forge = Forge()


@forge.handler
async def get_name(user_id: int) -> str:
    return str(user_id)


@forge.handler
async def get_age(user_id: int) -> int:
    await asyncio.sleep(0.08)
    return user_id + 20


@forge.handler
async def get_address(user_id: int) -> int:
    await asyncio.sleep(0.05)
    return user_id + 100


@forge.handler
async def collector(name: str, age: int, address: int) -> int:
    return int(name) + age + address


def etl() -> Flow:
    flow = Flow("user-etl")
    name = flow.node(get_name)
    age = flow.node(get_age)
    address = flow.node(get_address)
    flow.node(collector).depends_on(name, age, address)
    return flow.validate()


async def main() -> None:
    async with forge:
        started = await etl().start(inputs=[42, 43, 44])
        worker = Worker(forge, queues=["default"])
        working = asyncio.create_task(worker.run())
        print(await forge.flows.wait(started, timeout=30))
        worker.stop()
        await working


if __name__ == "__main__":
    asyncio.run(main())

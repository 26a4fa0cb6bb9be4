"""Work for the CPU, in processes: the event loop and its heartbeat stay free.

python examples/stretch.py
"""

import asyncio
import hashlib

from forge_jobs import Forge, Worker

forge = Forge()


@forge.handler(queue="cpu", executor="process", timeout=60)
def stretch(password: str, rounds: int = 200_000) -> str:
    """A plain function, found by import in the other process."""
    return hashlib.pbkdf2_hmac("sha256", password.encode(), b"salt", rounds).hex()


async def main() -> None:
    async with forge:
        jobs = await stretch.enqueue_many([{"password": word} for word in ("one", "two", "three")])
        await Worker(forge, queues=["cpu"], concurrency=2).run(until_empty=True)
        for job in jobs:
            print(await forge.wait(job.id))


if __name__ == "__main__":
    asyncio.run(main())

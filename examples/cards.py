"""Arguments that nobody reads: sealed in the database, and redacted wherever people look.

FORGE_DATABASE_URL=sqlite:///cards.sqlite python examples/cards.py
"""

import asyncio
import os

from forge_jobs import Forge, Worker
from forge_jobs.client.document import document
from forge_jobs.codecs import compressed, new_key, register, sealed

# In a program they come from a secret: SEALING_KEYS="2026-11:BASE64 2026-05:BASE64"
keys = os.environ.get("SEALING_KEYS") or f"2026-11:{new_key()} 2026-05:{new_key()}"

register("packed", compressed("json"))
register("sealed", sealed("packed", keys=keys))

forge = Forge()


@forge.handler(codec="sealed", max_attempts=1)
async def charge(order: int, card: str) -> str:
    return f"order {order} is paid with {card}"


@forge.handler(redact="card", max_attempts=1)
async def refund(order: int, card: str) -> None:
    raise ValueError(f"the bank does not know {card}")


async def main() -> None:
    async with forge:
        charged = await charge.enqueue(order=7, card="4111 1111 1111 1111")
        refunded = await refund.enqueue(order=7, card="4111 1111 1111 1111")
        await Worker(forge, queues=["default"]).run(until_empty=True)

        print(await forge.wait(charged))  # who waits for a result gets it
        print(document(await forge.jobs.get(charged))["payload"]["sealed"].partition(", ")[2])
        shown = document(await forge.jobs.get(refunded))
        print(shown["payload"])
        print(shown["error"].splitlines()[0])


if __name__ == "__main__":
    asyncio.run(main())

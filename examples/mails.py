"""Mails that are sent together by one job, of which only those that failed are tried again.

FORGE_DATABASE_URL=sqlite://:memory: python examples/mails.py
"""

import asyncio
from dataclasses import dataclass

from forge_jobs import Context, Dead, Forge, JobDead, Worker

forge = Forge()
calls: list[list[str]] = []


@dataclass
class Mail:
    to: str


@forge.batch_handler
async def notify(ctx: Context, mails: list[Mail]) -> list[object]:
    """One call to a mail provider, say, which takes 1,000 addresses and answers for each."""
    calls.append([mail.to for mail in mails])
    return [answer(mail.to, ctx.attempt) for mail in mails]


def answer(address: str, attempt: int) -> object:
    if "@" not in address:
        return Dead("no address")
    if address.startswith("bob") and attempt == 1:
        return TimeoutError("try again")
    return f"sent to {address}"


async def main() -> None:
    async with forge:
        await forge.queues.set("default", backoff_enabled=False)
        adding = notify.options(key="newsletter", key_mode="merge")
        for name in ("ann", "bob", "cyd"):
            job = await adding.enqueue(mails=[Mail(f"{name}@example.com")])
        wrong = await notify.enqueue(mails=[Mail("dan@example.com"), Mail("nobody")])
        await Worker(forge, queues=["default"]).run(until_empty=True)
        for result in await forge.wait(job):
            print(result)
        try:
            await forge.wait(wrong)
        except JobDead as error:
            print(str(error).splitlines()[0])
        print(f"calls: {sorted(calls)}")


if __name__ == "__main__":
    asyncio.run(main())

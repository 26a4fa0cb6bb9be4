"""Jobs that are done a hundred at a time, each with an outcome of its own.

FORGE_DATABASE_URL=sqlite://:memory: python examples/pages.py
"""

import asyncio
from dataclasses import dataclass

from forge_jobs import Batch, BatchJob, Dead, Forge, Worker

forge = Forge()
calls: list[int] = []


@dataclass
class Page:
    url: str


@forge.handler(batch=Batch(size=100, within=0.2))
async def index(jobs: list[BatchJob[Page]]) -> list[object]:
    """One call to a search engine, say."""
    calls.append(len(jobs))
    return [
        Dead("no page of ours") if job.arguments.url.startswith("http") else len(job.arguments.url)
        for job in jobs
    ]


async def main() -> None:
    async with forge:
        urls = [f"/page/{number}" for number in range(250)]
        await index.enqueue_many([{"url": url} for url in [*urls, "https://elsewhere.example"]])
        await Worker(forge, queues=["default"], concurrency=200).run(until_empty=True)
        [counts] = await forge.jobs.counts()
        print(f"{counts.done} pages are indexed, {counts.dead} was refused")
        print(f"at most {max(calls)} at a time")


if __name__ == "__main__":
    asyncio.run(main())

"""The demonstration, from an empty database to a report."""

import asyncio
import os
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from forge_jobs import Forge, State, Worker
from forge_jobs.demo.check import Comparison, compare
from forge_jobs.demo.files import Digest, find_files
from forge_jobs.demo.handlers import LIMIT_CAPACITY, LIMIT_REFILL, QUEUES, configure, register
from forge_jobs.demo.progress import progress
from forge_jobs.demo.report import DemoReport
from forge_jobs.demo.screen import Screen
from forge_jobs.demo.watch import DemoWatch, percentile
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.model.run import Outcome
from forge_jobs.testing.local_postgres import LocalPostgres

MOST_FOLDERS = 40  # announced: with more, the rate limit and not the files would take the time
FIRES_WANTED = 2
PAGE = 1000  # jobs enqueued, and read, at a time


async def run(
    directory: Path,
    *,
    postgres: bool = False,
    report: Path | None = None,
    concurrency: int = 20,
    quiet: bool = False,
) -> DemoReport:
    """Hash every file below `directory` through the queue, and compare the outcome with a direct walk.

    The database is a temporary one: SQLite, or with `postgres` a PostgreSQL server that is
    started for it. `report` is where the JSON goes. Returns the report, whose `verified`
    says whether all was as it should be. Raises InvalidInput when there is nothing to read.
    """
    screen = Screen(is_quiet=quiet)
    files = await asyncio.to_thread(_files, directory)
    with _database(postgres, screen) as url:
        forge = Forge(url)
        register(forge)
        async with forge:
            await configure(forge)
            work = Work(forge, files, concurrency, screen)
            done = await work.run()
            facts = await _facts(forge, directory, work, done, screen)
    screen.show(f"{facts.directory}, with {facts.database}")
    screen.show(facts.table())
    for problem in facts.problems:
        screen.show(f"differs: {problem}", fg="red")
    if report is not None:
        facts.write(report)
        screen.show(f"report: {report}")
    return facts


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was seen of the work."""

    watch: DemoWatch
    jobs: int  # ended when the last file's job ended
    seconds: float  # until then
    elapsed: float  # until the worker stopped


class Work:
    """The jobs of one demonstration, over a database that is open and configured."""

    def __init__(self, forge: Forge, files: list[str], concurrency: int, screen: Screen) -> None:
        self.forge = forge
        self.files = files
        self.folders = sorted({os.path.dirname(path) for path in files})[:MOST_FOLDERS]
        self.concurrency = concurrency
        self.screen = screen
        self.stumbling = 0  # the id of the planted failure
        self.hopeless = 0  # the id of the planted dead job

    async def run(self) -> DemoResult:
        """Every job has ended, and the cron has fired."""
        wanted = {"digest": len(self.files), "announce": len(self.folders), "stumble": 1, "give_up": 1}
        with progress(sum(wanted.values()), self.screen) as show:
            watch = DemoWatch(show)
            unsubscribe = self.forge.telemetry.subscribe(watch)
            worker = Worker(self.forge, queues=list(QUEUES), concurrency=self.concurrency)
            began = time.perf_counter()
            working = asyncio.create_task(worker.run())
            try:
                await self._enqueue()
                await _while_running(
                    working, watch.until(lambda seen: seen.ended["digest"] >= len(self.files))
                )
                jobs, seconds = watch.ended.total(), time.perf_counter() - began
                await _while_running(working, watch.until(lambda seen: _all_ended(seen, wanted)))
                await _while_running(working, watch.until(lambda seen: seen.ended["tick"] >= FIRES_WANTED))
            finally:
                worker.stop()
                await working
                unsubscribe()
        return DemoResult(watch, jobs, seconds, time.perf_counter() - began)

    async def _enqueue(self) -> None:
        """The planted jobs wait, one for each folder, and one for each file."""
        self.stumbling = (await self.forge.enqueue("stumble")).id
        self.hopeless = (await self.forge.enqueue("give_up")).id
        await self.forge.enqueue_many("announce", [{"folder": folder} for folder in self.folders])
        for start in range(0, len(self.files), PAGE):
            page = self.files[start : start + PAGE]
            await self.forge.enqueue_many("digest", [{"path": path} for path in page])

    async def digests(self) -> dict[str, Digest]:
        """Return what the queue found, by path, from the results that it kept."""
        digests: dict[str, Digest] = {}
        before: int | None = None
        while page := await self.forge.jobs.list(state=State.DONE, kind="digest", limit=PAGE, before=before):
            for job in page:
                digest = msgspec.json.decode(job.result or b"", type=Digest)
                digests[digest.path] = digest
            before = page[-1].id
        return digests

    async def planted_problems(self) -> list[str]:
        """Return a sentence for each planted job that did not end as planned."""
        stumbled = await self.forge.jobs.get(self.stumbling)
        hopeless = await self.forge.jobs.get(self.hopeless)
        problems = []
        if (stumbled.state, stumbled.attempt) != (State.DONE, 2):
            problems.append(
                f"the planted failure is {stumbled.state} at attempt {stumbled.attempt}, not done at 2"
            )
        if (hopeless.state, hopeless.attempt) != (State.DEAD, 1):
            problems.append(
                f"the planted dead job is {hopeless.state} at attempt {hopeless.attempt}, not dead at 1"
            )
        return problems

    def limit_problems(self, done: DemoResult) -> list[str]:
        """Return a sentence if the rate limit let more jobs through than it may."""
        announced = done.watch.done["announce"]
        allowed = LIMIT_CAPACITY + LIMIT_REFILL * done.elapsed
        if announced > allowed:
            return [
                f"the rate limit let {announced} jobs through in {done.elapsed:.2f} s, allowed are {allowed:.0f}"
            ]
        if announced < len(self.folders):
            return [f"{announced} folders were announced, not {len(self.folders)}"]
        return []


async def _facts(forge: Forge, directory: Path, work: Work, done: DemoResult, screen: Screen) -> DemoReport:
    with screen.doing("Comparing with a direct walk"):
        digests = await work.digests()
        comparison: Comparison = await asyncio.to_thread(compare, work.files, digests)
        problems = comparison.problems + await work.planted_problems() + work.limit_problems(done)
    watch = done.watch
    return DemoReport(
        directory=str(directory),
        database=(await forge.storage.schema.status()).server,
        concurrency=work.concurrency,
        files=len(work.files),
        bytes=comparison.bytes,
        lines=comparison.lines,
        jobs=done.jobs,
        seconds=round(done.seconds, 3),
        jobs_per_second=round(done.jobs / done.seconds, 1),
        retries=watch.outcomes[Outcome.FAILED],
        dead=watch.outcomes[Outcome.DEAD],
        unreadable=comparison.unreadable,
        changed=comparison.changed,
        announcements=watch.done["announce"],
        cron_fires=watch.cron_fires,
        wait_p50_ms=round(1000 * percentile(watch.waits, 0.5), 3),
        wait_p99_ms=round(1000 * percentile(watch.waits, 0.99), 3),
        problems=problems,
    )


def _files(directory: Path) -> list[str]:
    if not directory.is_dir():
        raise InvalidInput(f"The folder is {str(directory)!r}, allowed is a folder that exists.")
    files = find_files(directory)
    if not files:
        raise InvalidInput(f"The folder {str(directory)!r} holds no files that can be read.")
    return files


@contextmanager
def _database(postgres: bool, screen: Screen) -> Iterator[str]:
    """Give the URL of a database that is gone after the block."""
    if postgres:
        screen.show("Starting PostgreSQL")
        with LocalPostgres() as server:
            yield server.url()
    else:
        with tempfile.TemporaryDirectory(prefix="forge-jobs-demo-") as folder:
            yield f"sqlite:///{folder}/queue.sqlite"


async def _while_running(working: asyncio.Task[Any], reached: Coroutine[Any, Any, None]) -> None:
    """Wait for `reached`, unless the worker ends before it; then raise what ended it."""
    reaching = asyncio.create_task(reached)
    await asyncio.wait((working, reaching), return_when=asyncio.FIRST_COMPLETED)
    if not reaching.done():
        reaching.cancel()
        await working
        raise ForgeError("The worker stopped before every job had ended.")


def _all_ended(watch: DemoWatch, wanted: Mapping[str, int]) -> bool:
    return all(watch.ended[kind] >= count for kind, count in wanted.items())

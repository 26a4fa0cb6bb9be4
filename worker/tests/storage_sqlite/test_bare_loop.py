"""The benchmark's bare loop on SQLite does what the library does, so that comparing the two is fair."""

from pathlib import Path

from benchmarks.sides import bare_sqlite, forge
from benchmarks.workload import BARE_BATCH, QUEUE
from forge_jobs import Forge

JOBS = 2 * BARE_BATCH + 1


async def test_the_bare_loop_ends_every_job_and_counts_it(tmp_path: Path) -> None:
    path = tmp_path / "bare.sqlite"
    url = f"sqlite:///{path}"
    await forge.fill(url, JOBS)

    drained = bare_sqlite.work_through(str(path), JOBS)

    async with Forge(url) as program:
        [counts] = [counts for counts in await program.storage.jobs.counts() if counts.queue == QUEUE]
    assert drained["jobs"] == JOBS
    assert (counts.pending, counts.in_progress, counts.done) == (0, 0, JOBS)

"""How fast a full queue in PostgreSQL is emptied: first handler begun to last outcome durable."""

from collections.abc import Callable
from typing import Any

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone, Sample, rates
from benchmarks.line import AtLeast, Line

PEER_SHARE = (
    4  # pgqueuer gets a part of the jobs: each takes it longer, and a shorter queue is to its advantage
)
DONE = "SELECT count(*) FROM forge_jobs.finished WHERE state = 'done'"
PGQUEUER: dict[str, dict[str, Any]] = {
    "pgqueuer, as its own benchmark runs it": {"batch": 10, "managers": 5},
    "pgqueuer, in batches of 500": {"batch": 500, "managers": 1},
}
"""Its documents say to raise the batch for short jobs, not how far; 500 was the fastest of 10 to 1000 where we tried."""


def filled(bench: Bench, system: str, jobs: int) -> str:
    """Return the template of a database in which so many jobs of the system wait."""
    name = f"{system}_{jobs}"
    if not bench.server.has_template(name):
        with bench.doing(f"enqueueing {jobs:,} jobs of {system}"), bench.server.template(name) as url:
            child.run(f"{system}.fill", url=url, jobs=jobs)
    return name


def ours(bench: Bench, jobs: int, side: str = "forge.work_through", **arguments: Any) -> Sample:
    """Work off `jobs` of our jobs, and look whether the database agrees that they are done."""
    with bench.server.fresh(filled(bench, "forge", jobs)) as url:
        sample = bench.on_server(side, url=url, jobs=jobs, **arguments)
        if (done := int(bench.server.execute(DONE))) != jobs:
            raise NotAllDone(f"{jobs} jobs were given, the database says that {done} are done")
        return sample


def pgqueuer(bench: Bench, jobs: int, settings: dict[str, Any]) -> Callable[[], Sample]:
    """Return what works off `jobs` jobs with pgqueuer."""

    def side() -> Sample:
        with bench.server.fresh(filled(bench, "pgqueuer", jobs)) as url:
            return bench.on_server("pgqueuer.work_through", url=url, jobs=jobs, **settings)

    return side


def measure(bench: Bench) -> list[Line]:
    """Return the throughput beside the bare loop and beside pgqueuer."""
    share = max(1, bench.jobs // PEER_SHARE)
    samples = bench.alternate(
        "throughput",
        {
            "forge-jobs": lambda: ours(bench, bench.jobs),
            "bare loop": lambda: ours(bench, bench.jobs, "bare_postgres.work_through"),
            **{name: pgqueuer(bench, share, settings) for name, settings in PGQUEUER.items()},
        },
    )
    goals = {"bare loop": AtLeast(0.5), **dict.fromkeys(PGQUEUER, AtLeast(4))}
    return [
        Line("throughput", "jobs/s", rates(samples["forge-jobs"]), name, rates(samples[name]), goal)
        for name, goal in goals.items()
    ]

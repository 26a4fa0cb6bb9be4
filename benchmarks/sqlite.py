"""How fast a full queue in SQLite is emptied by one process."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import child
from benchmarks.bench import Bench, Sample, rates, sampled
from benchmarks.line import AtLeast, Line

SHARE = 2  # of the jobs that PostgreSQL gets
PEER_SHARE = 10  # huey takes longer for each, and fewer waiting ones are to its advantage


@contextmanager
def filled(bench: Bench, system: str, jobs: int) -> Iterator[Path]:
    """Give a file in which so many jobs of the system wait; it is gone after the block."""
    template = bench.folder / f"{system}-{jobs}.sqlite"
    if not template.exists():
        with bench.doing(f"enqueueing {jobs:,} jobs of {system} on SQLite"):
            place = {"url": f"sqlite:///{template}"} if system == "forge" else {"path": str(template)}
            child.run(f"{system}.fill", jobs=jobs, **place)
    copy = bench.folder / "side.sqlite"
    shutil.copyfile(template, copy)
    try:
        yield copy
    finally:
        for file in bench.folder.glob("side.sqlite*"):
            file.unlink()


def ours(bench: Bench, jobs: int) -> Sample:
    """Work off `jobs` jobs with a worker of forge-jobs."""
    with filled(bench, "forge", jobs) as path:
        return sampled(child.run("forge.work_through", url=f"sqlite:///{path}", jobs=jobs), jobs)


def bare(bench: Bench, jobs: int) -> Sample:
    """Work off `jobs` jobs with the bare statements."""
    with filled(bench, "forge", jobs) as path:
        return sampled(child.run("bare_sqlite.work_through", path=str(path), jobs=jobs), jobs)


def huey(bench: Bench, jobs: int) -> Sample:
    """Work off `jobs` jobs with huey."""
    with filled(bench, "huey", jobs) as path:
        return sampled(child.run("huey.work_through", path=str(path), jobs=jobs), jobs)


def measure(bench: Bench) -> list[Line]:
    """Return the throughput beside the bare loop and beside huey."""
    jobs, share = max(1, bench.jobs // SHARE), max(1, bench.jobs // PEER_SHARE)
    samples = bench.alternate(
        "throughput on SQLite",
        {
            "forge-jobs": lambda: ours(bench, jobs),
            "bare loop": lambda: bare(bench, jobs),
            "huey": lambda: huey(bench, share),
        },
    )
    mine = rates(samples["forge-jobs"])
    return [
        Line(
            "throughput on SQLite",
            "jobs/s",
            mine,
            "bare loop",
            rates(samples["bare loop"]),
            AtLeast(0.4),
        ),
        Line("throughput on SQLite", "jobs/s", mine, "huey", rates(samples["huey"]), AtLeast(3)),
    ]

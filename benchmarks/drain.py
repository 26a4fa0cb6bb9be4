"""How fast a full queue in PostgreSQL is emptied: first handler begun to last outcome durable."""

from benchmarks import child
from benchmarks.bench import Bench, Sample
from benchmarks.line import AtLeast, Line

PEER_SHARE = 4  # pgqueuer gets a part of the jobs: it takes longer for each, and fewer waiting ones are to its advantage
DONE = "SELECT count(*) FROM forge_jobs.finished WHERE state = 'done'"


def filled(bench: Bench, jobs: int) -> str:
    """Return the template of a database in which so many of our jobs wait."""
    name = f"forge_{jobs}"
    if not bench.server.has_template(name):
        with bench.doing(f"enqueueing {jobs:,} jobs"), bench.server.template(name) as url:
            child.run("forge.fill", url=url, jobs=jobs)
    return name


def ours(bench: Bench, jobs: int, *, is_pinned: bool = False) -> Sample:
    """Drain `jobs` jobs with a worker of forge-jobs."""
    with bench.server.fresh(filled(bench, jobs)) as url:
        sample = bench.checked(child.run("forge.drain", url=url, jobs=jobs, is_pinned=is_pinned), jobs)
        bench.checked({"jobs": int(bench.server.execute(DONE)), "started": jobs}, jobs)
        return sample


def bare(bench: Bench, jobs: int) -> Sample:
    """Drain `jobs` jobs with the bare statements."""
    with bench.server.fresh(filled(bench, jobs)) as url:
        sample = bench.checked(child.run("bare_postgres.drain", url=url, jobs=jobs), jobs)
        bench.checked({"jobs": int(bench.server.execute(DONE)), "started": jobs}, jobs)
        return sample


def pgqueuer(bench: Bench, jobs: int) -> Sample:
    """Drain `jobs` jobs with pgqueuer."""
    name = f"pgqueuer_{jobs}"
    if not bench.server.has_template(name):
        with bench.doing(f"enqueueing {jobs:,} jobs of pgqueuer"), bench.server.template(name) as url:
            child.run("pgqueuer.fill", url=url, jobs=jobs)
    with bench.server.fresh(name) as url:
        return bench.checked(child.run("pgqueuer.drain", url=url, jobs=jobs), jobs)


def measure(bench: Bench) -> list[Line]:
    """Return the drain beside the bare loop and beside pgqueuer."""
    share = max(1, bench.jobs // PEER_SHARE)
    rates = bench.alternate(
        "drain",
        {
            "forge-jobs": lambda: ours(bench, bench.jobs),
            "bare loop": lambda: bare(bench, bench.jobs),
            "pgqueuer": lambda: pgqueuer(bench, share),
        },
    )
    mine = rates["forge-jobs"]
    return [
        Line("drain", "jobs/s", mine, "bare loop of the same statements", rates["bare loop"], AtLeast(0.5)),
        Line("drain", "jobs/s", mine, "pgqueuer", rates["pgqueuer"], AtLeast(4)),
    ]

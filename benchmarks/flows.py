"""How fast flows go on: chains, whose steps are freed one by one, and a join of ten thousand jobs."""

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone, Sample, rates
from benchmarks.line import AtMostTimes, Line

STEPS = 10  # of a chain
CHAINED_SHARE = 5  # of the jobs of a run
JOINED_SHARE = 10  # of the jobs of a run wait for one: ten thousand
ENDED = "SELECT count(*) FROM forge_jobs.flow WHERE state = 'done' AND done = nodes"


def filled(bench: Bench, side: str, **arguments: int) -> str:
    """Return the template of a database in which these flows wait."""
    name = side.replace(".", "_")
    if not bench.server.has_template(name):
        with bench.doing("starting flows"), bench.server.template(name) as url:
            child.run(side, url=url, **arguments)
    return name


def drain(
    bench: Bench, side: str, flows: int, jobs: int, *, is_pinned: bool = False, **arguments: int
) -> Sample:
    """Work off the flows, and look whether the database agrees that they are done."""
    with bench.server.fresh(filled(bench, side, jobs=jobs, **arguments)) as url:
        sample = bench.on_server("flowed.work_through", url=url, jobs=jobs, is_pinned=is_pinned)
        if (done := int(bench.server.execute(ENDED))) != flows:
            raise NotAllDone(f"{flows} flows were started, the database says that {done} are done")
        return sample


def measure(bench: Bench) -> list[Line]:
    """Return the steps a second of chains, and how long a join takes, also beside a transaction that is held open."""
    chained = bench.jobs // CHAINED_SHARE // STEPS * STEPS
    joined = bench.jobs // JOINED_SHARE + 1
    samples = bench.alternate(
        "flows",
        {
            "chains": lambda: drain(bench, "flowed.chains", chained // STEPS, chained, steps=STEPS),
            "join": lambda: drain(bench, "flowed.fan_in", 1, joined),
            "join, held": lambda: drain(bench, "flowed.fan_in", 1, joined, is_pinned=True),
        },
    )
    took = {name: [1000 * joined / rate for rate in rates(samples[name])] for name in ("join", "join, held")}
    what = f"{joined - 1:,} jobs and their join"
    return [
        Line(f"steps of chains of {STEPS}", "jobs/s", rates(samples["chains"])),
        Line(what, "ms", took["join"]),
        Line(
            f"{what}, transaction held open",
            "ms",
            took["join, held"],
            "none",
            took["join"],
            AtMostTimes(2.0),
        ),
    ]

"""What a rate limit by key costs its jobs, with a million keys in use, of which the jobs use ten thousand."""

from benchmarks import child
from benchmarks.bench import Bench, NotAllDone, Sample, rates
from benchmarks.line import AtLeast, AtMostTimes, Line

KEYS_FACTOR = 10  # times the jobs of other runs: a million
HOT_SHARE = 10  # a tenth of those jobs: ten thousand
USES = 40  # jobs of each of the hot keys, so that the first look at a key weighs little
# What was logged is in the rows of the keys, and the next spends may be logged.
IN_ROWS = "SELECT forge_jobs.end_log(scope) FROM forge_jobs.rate_limit; UPDATE forge_jobs.rate_limit SET unlogged_at = NULL"
SPENT = "SELECT sum(full_at) FROM forge_jobs.rate_key"
ROWS = "SELECT count(*) FROM forge_jobs.rate_key"


def filled(bench: Bench, keys: int, hot: int) -> str:
    """Return the template of a database with so many keys in use, and USES jobs of each of the hot ones."""
    name = f"keyed_{keys}"
    if not bench.server.has_template(name):
        with bench.doing(f"spending tokens of {keys:,} keys"), bench.server.template(name) as url:
            child.run("keyed.fill", url=url, jobs=USES * hot, keys=keys, hot=hot)
    return name


def drain(bench: Bench, keys: int, hot: int, *, is_limited: bool) -> Sample:
    """Work off the jobs; look whether each has paid its token, and no other."""
    with bench.server.fresh(filled(bench, keys, hot)) as url:
        bench.server.execute(IN_ROWS)
        before = float(bench.server.execute(SPENT))
        sample = bench.on_server("keyed.work_through", url=url, jobs=USES * hot, is_limited=is_limited)
        bench.server.execute(IN_ROWS)
        spent = float(bench.server.execute(SPENT)) - before
    if round(spent) != (USES * hot if is_limited else 0):
        raise NotAllDone(f"{USES * hot} jobs have run, {spent:.0f} tokens of keys were spent")
    return sample


def served(samples: list[Sample]) -> list[float]:
    """Return how many microseconds of its processor the server took for a job; none where /proc does not tell."""
    return [
        1_000_000 * sample.server_cpu / sample.jobs for sample in samples if sample.server_cpu is not None
    ]


def worked(samples: list[Sample]) -> list[float]:
    """Return how many microseconds of a processor the worker and the server took for a job together."""
    return [
        1_000_000 * (sample.cpu + sample.server_cpu) / sample.jobs
        for sample in samples
        if sample.cpu is not None and sample.server_cpu is not None
    ]


def swept(bench: Bench, keys: int, hot: int) -> list[float]:
    """Let all keys be used no more, and sweep; return how many milliseconds each look took."""
    with bench.server.fresh(filled(bench, keys, hot)) as url, bench.doing(f"sweeping {keys:,} keys"):
        looks = child.run("keyed.sweep", url=url)["looks"]
        if (left := int(bench.server.execute(ROWS))) != 0:
            raise NotAllDone(f"{left} keys have a row though nobody uses them")
    return [1000 * look for look in looks]


def measure(bench: Bench) -> list[Line]:
    """Return the throughput of jobs with a limit by key, beside fewer keys and no limit, and what a sweep takes."""
    keys, hot = KEYS_FACTOR * bench.jobs, max(1, bench.jobs // HOT_SHARE)
    many, few, without = f"{keys:,} keys", f"{hot:,} keys", "without a limit"
    samples = bench.alternate(
        "limited by key",
        {
            many: lambda: drain(bench, keys, hot, is_limited=True),
            few: lambda: drain(bench, hot, hot, is_limited=True),
            without: lambda: drain(bench, keys, hot, is_limited=False),
        },
    )
    what, ours = f"throughput, limited by key, {many} in use", rates(samples[many])
    return [
        Line(what, "jobs/s", ours, f"{few} in use", rates(samples[few]), AtLeast(0.85)),
        Line(what, "jobs/s", ours, without, rates(samples[without]), AtLeast(0.85)),
        *[
            Line(
                f"{whose} a job, limited by key",
                "µs",
                cost(samples[many]),
                without,
                cost(samples[without]),
                AtMostTimes(1.15),
            )
            for whose, cost in (("server's time", served), ("processor time of worker and server", worked))
        ],
        Line(f"look of the sweep, {many} used no more", "ms", swept(bench, keys, hot)),
    ]

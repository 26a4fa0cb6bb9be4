"""What becomes of the throughput while a long transaction elsewhere keeps dead rows from being removed."""

from benchmarks import throughput
from benchmarks.bench import Bench, rates
from benchmarks.line import AtLeast, Line


def measure(bench: Bench) -> list[Line]:
    """Return the throughput of twice as many jobs with a REPEATABLE READ transaction held open, and without one."""
    jobs = 2 * bench.jobs
    samples = bench.alternate(
        f"throughput of {jobs:,}",
        {
            "transaction held open": lambda: throughput.ours(bench, jobs, is_pinned=True),
            "without": lambda: throughput.ours(bench, jobs),
        },
    )
    held, without = rates(samples["transaction held open"]), rates(samples["without"])
    return [
        Line("throughput, transaction held open", "jobs/s", held, "the same without", without, AtLeast(0.85))
    ]

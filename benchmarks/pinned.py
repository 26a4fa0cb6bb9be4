"""What becomes of the drain while a long transaction elsewhere keeps dead rows from being removed."""

from benchmarks import drain
from benchmarks.bench import Bench, rates
from benchmarks.line import AtLeast, Line


def measure(bench: Bench) -> list[Line]:
    """Return the drain of twice as many jobs with a REPEATABLE READ transaction held open, beside one without."""
    jobs = 2 * bench.jobs
    samples = bench.alternate(
        f"drain of {jobs:,}",
        {
            "transaction held open": lambda: drain.ours(bench, jobs, is_pinned=True),
            "without": lambda: drain.ours(bench, jobs),
        },
    )
    held, without = rates(samples["transaction held open"]), rates(samples["without"])
    return [Line("drain, transaction held open", "jobs/s", held, "the same without", without, AtLeast(0.85))]

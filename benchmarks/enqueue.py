"""How fast many jobs are enqueued with one call, beside a COPY of rows that were made before."""

from benchmarks import child
from benchmarks.bench import Bench, Sample, rates
from benchmarks.line import AtLeast, Line

TEMPLATE = "forge_empty"


def empty(bench: Bench) -> str:
    """Return the template of a database with our tables and nothing in them."""
    if not bench.server.has_template(TEMPLATE):
        with bench.server.template(TEMPLATE) as url:
            child.run("forge.prepare", url=url)
    return TEMPLATE


def _side(bench: Bench, side: str) -> Sample:
    with bench.server.fresh(empty(bench)) as url:
        return bench.on_server(side, url=url, jobs=bench.jobs)


def measure(bench: Bench) -> list[Line]:
    """Return `enqueue_many` beside COPY."""
    samples = bench.alternate(
        "bulk enqueue",
        {
            "enqueue_many": lambda: _side(bench, "forge.enqueue"),
            "bare COPY": lambda: _side(bench, "bare_postgres.enqueue"),
        },
    )
    return [
        Line(
            "bulk enqueue",
            "jobs/s",
            rates(samples["enqueue_many"]),
            "bare COPY",
            rates(samples["bare COPY"]),
            AtLeast(0.6),
        )
    ]

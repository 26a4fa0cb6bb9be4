"""What a worker costs that has nothing to do: its processor time, and the statements that it sends."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks import child
from benchmarks.bench import Bench
from benchmarks.child import Child
from benchmarks.enqueue import empty
from benchmarks.line import AtMost, Line

SETTLE = 10.0  # seconds
SECONDS = 30.0
STATEMENT = re.compile(r"^(?P<at>\d+\.\d+) (?P<database>\S+) LOG:  (statement|execute [^:]*): ")

Stretch = Mapping[str, float]


def statements(log: Path, database: str, stretch: Stretch) -> int:
    """Return how many statements the server's log shows for the database in this stretch of time."""
    count = 0
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            found = STATEMENT.match(line)
            if found and found["database"] == database:
                count += stretch["began"] <= float(found["at"]) < stretch["ended"]
    return count


def measure(bench: Bench) -> list[Line]:
    """Return what idle workers cost: ours on both databases and pgqueuer's, all at the same time."""
    timing = {"settle": SETTLE, "seconds": min(SECONDS, max(3.0, bench.jobs / 1000))}
    path = bench.folder / "idle.sqlite"
    with ExitStack() as stack:
        ours_url = stack.enter_context(bench.server.fresh(empty(bench), name="ours", log_statement="all"))
        other_url = stack.enter_context(bench.server.fresh(name="other", log_statement="all"))
        child.run("pgqueuer.fill", url=other_url, jobs=0)
        with bench.doing(f"idle workers for {timing['settle'] + timing['seconds']:.0f} s"):
            workers = [
                stack.enter_context(Child("forge.idle", url=ours_url, **timing)),
                stack.enter_context(Child("pgqueuer.idle", url=other_url, **timing)),
                stack.enter_context(Child("forge.idle", url=f"sqlite:///{path}", **timing)),
            ]
            ours, other, sqlite = (worker.finish() for worker in workers)
    ours_sent, other_sent = (
        statements(bench.server.log, name, stretch) / (stretch["ended"] - stretch["began"])
        for name, stretch in (("ours", ours), ("other", other))
    )
    lines = [
        Line(
            "idle worker, PostgreSQL", "% of a core", [_share(ours)], "pgqueuer", [_share(other)], AtMost(1)
        ),
        Line("idle worker, PostgreSQL", "statements/s", [ours_sent], "pgqueuer", [other_sent], AtMost(2)),
        Line("idle worker, SQLite", "% of a core", [_share(sqlite)], goal=AtMost(1)),
    ]
    for line in lines:
        bench.say(f"{line.what}: {line.ours:.2f} {line.unit}")
    return lines


def _share(stretch: Stretch) -> float:
    return 100 * stretch["cpu"] / (stretch["ended"] - stretch["began"])

"""What forge-jobs has set itself, as lines of one run: ours beside the best of the others, all at their best settings.

A pair of samples is of one round. Where the other side is "the best of" several queues, it is the one with the best
median. A goal of which one side was not measured has no line.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from benchmarks.comparison.catalogue import Peer
from benchmarks.comparison.cells import IDLE, LOAD, PINNED, THROUGHPUT, Column, What
from benchmarks.comparison.measure import Result
from benchmarks.comparison.table import CLEAN, STRESS, Found
from benchmarks.line import AtLeast, AtMost, AtMostTimes, Goal, Line
from benchmarks.report import cells

OURS, OURS_SQLITE = "forge-jobs", "forge-jobs-sqlite"
BARE, BARE_SQLITE = "bare-loop", "bare-loop-sqlite"
FASTEST = "graphile-worker"  # the fastest other queue of any language
TWO = Column(What.THROUGHPUT, processes=2)
SINGLE, SINGLES = Column(What.SINGLE), Column(What.SINGLE, processes=16)

Take = Callable[[Result], float | None]


def _value(name: str, scale: float = 1) -> Take:
    def take(found: Result) -> float | None:
        value = found.get(name)
        return None if value is None else scale * value

    return take


def _processor(found: Result) -> float | None:
    client, server = found.get("client"), found.get("server")
    return None if client is None or server is None else 1e6 * (client + server)


RATE, BULK, WAL, P99 = _value("rate"), _value("bulk"), _value("wal"), _value("p99")


class _Run:
    """A run as goals look at it."""

    def __init__(
        self, results: Mapping[str, Result], peers: Mapping[str, Peer], databases: Mapping[str, str]
    ) -> None:
        self._found = Found(results)
        self._peers = peers
        self._databases = databases

    def samples(self, peer: str, column: Column, take: Take) -> Sequence[float]:
        """Return one number of a queue, one a round."""
        values = [take(found) for found in self._found.rounds((peer, "best"), column)]
        return [value for value in values if value is not None]

    def others(self, *, python: bool = False) -> Iterator[str]:
        """Give the other queues on PostgreSQL that lose and repeat nothing."""
        for name, peer in self._peers.items():
            if peer.ours or self._databases.get(name) != "postgres" or (python and peer.is_node):
                continue
            if not self._found.wrong((name, "best")):
                yield name

    def best(self, column: Column, take: Take, *, least: bool = False, python: bool = False) -> str:
        """Return which of them has the greatest median, or the least."""
        known = [
            (Line("", "", samples).ours, name)
            for name in self.others(python=python)
            if (samples := self.samples(name, column, take))
        ]
        return min(known)[1] if known and least else max(known)[1] if known else ""

    def line(
        self,
        what: str,
        unit: str,
        column: Column,
        take: Take,
        goal: Goal,
        other: str,
        *,
        beside: Column | None = None,
        ours: str = OURS,
    ) -> Line:
        """Return ours beside the number of `other`, of the same column if none is named."""
        samples = self.samples(other, beside or column, take) if other else ()
        return Line(what, unit, self.samples(ours, column, take), other, samples, goal)


def goals(
    results: Mapping[str, Result], peers: Mapping[str, Peer], databases: Mapping[str, str]
) -> Sequence[Line]:
    """Return a line for each goal of which both sides were measured."""
    run = _Run(results, peers, databases)
    half, first = AtMostTimes(0.5), AtLeast(1)
    rate, ms = "jobs/s", "ms"
    lines = [
        run.line("throughput", rate, THROUGHPUT, RATE, AtLeast(2), FASTEST),
        run.line("throughput", rate, THROUGHPUT, RATE, AtLeast(5), run.best(THROUGHPUT, RATE, python=True)),
        run.line("throughput", rate, THROUGHPUT, RATE, AtLeast(0.8), BARE),
        run.line("client and server", "µs a job", THROUGHPUT, _processor, AtMostTimes(0.6), FASTEST),
        run.line("WAL", "bytes a job", THROUGHPUT, WAL, AtMost(500), ""),
        run.line("transaction held open", rate, PINNED, RATE, AtLeast(0.95), OURS, beside=THROUGHPUT),
        run.line("pickup p99, idle", ms, IDLE, P99, half, run.best(IDLE, P99, least=True)),
        run.line("pickup p99, at 70 %", ms, LOAD, P99, half, run.best(LOAD, P99, least=True)),
        run.line("enqueue one by one", rate, SINGLE, RATE, first, run.best(SINGLE, RATE)),
        run.line("the same, 16 callers", rate, SINGLES, RATE, first, run.best(SINGLES, RATE)),
        run.line("enqueue in bulk", rate, THROUGHPUT, BULK, first, run.best(THROUGHPUT, BULK)),
        run.line("two processes", rate, TWO, RATE, AtLeast(1.3), OURS, beside=THROUGHPUT),
        *(
            run.line(heading.text, rate, heading.column, RATE, AtLeast(0.85), OURS, beside=CLEAN)
            for heading in STRESS
            if heading.beside is not None
        ),
        run.line("throughput on SQLite", rate, THROUGHPUT, RATE, AtLeast(0.6), BARE_SQLITE, ours=OURS_SQLITE),
        run.line("throughput on SQLite", rate, THROUGHPUT, RATE, AtLeast(4), "huey", ours=OURS_SQLITE),
    ]
    return [
        line for line in lines if line.our_samples and (line.other_samples or isinstance(line.goal, AtMost))
    ]


def markdown(lines: Sequence[Line]) -> str:
    """Return them as a table; nothing without any."""
    if not lines:
        return ""
    rows = [
        f"| {what} | {unit} | {ours} | {other} | {beside} | {ratio} | {goal} | {'yes' if line.is_met else 'no'} |"
        for line in lines
        for what, unit, ours, other, beside, ratio, goal, _ in [cells(line)]
    ]
    head = [
        "| Goal | Unit | Ours | Other | Beside | Ratio | Wanted | Met |",
        "| --- | --- | ---: | ---: | --- | ---: | --- | --- |",
    ]
    return "\n".join([*head, *rows])

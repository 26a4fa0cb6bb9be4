"""In which order cells are measured, again and again, until every one is known."""

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from benchmarks.comparison import measure, stress
from benchmarks.comparison.cells import THROUGHPUT, Cell, Column, What
from benchmarks.comparison.measure import IDLE_RATE, IDLE_SHARE, LOAD_SHARE, Result, Subject
from benchmarks.comparison.process import AdapterFailed
from benchmarks.comparison.results import Results
from benchmarks.report import number
from benchmarks.server import Server

GUESS = 15.0  # seconds for a cell, before one was measured
Say = Callable[[str], None]


def shuffled(cells: Iterable[Cell], seed: int) -> Sequence[Cell]:
    """Return the cells round by round, each round in an order of its own, the same for the same seed.

    The pickup under load comes last: its load is a share of what the other cells of the round have found.
    """
    rounds: dict[int, list[Cell]] = defaultdict(list)
    for cell in cells:
        rounds[cell.turn].append(cell)
    order: list[Cell] = []
    for turn, found in sorted(rounds.items()):
        random.Random(seed + turn).shuffle(found)
        order += sorted(found, key=lambda cell: cell.column.what is What.LOAD)
    return order


class Rounds:
    """A run: measures what is not known yet, and says how far it is."""

    def __init__(
        self,
        server: Server,
        subjects: Mapping[tuple[str, str], Subject],
        results: Results,
        say: Say,
        tries: int,
        disturbance: float,
        longest: float,
    ) -> None:
        self._server = server
        self._subjects = subjects
        self._results = results
        self._say = say
        self._tries = tries
        self._disturbance = disturbance
        self._longest = longest
        self._took: dict[tuple[str, str], list[float]] = defaultdict(list)

    async def run(self, cells: Sequence[Cell]) -> None:
        """Every cell is known, but for those that took too long in an earlier round."""
        for index, cell in enumerate(cells, 1):
            if not self._is_wanted(cell):
                continue
            began = time.monotonic()
            result = await self._undisturbed(cell)
            took = time.monotonic() - began
            self._results.put(cell.name, {**result, "took": round(took, 1), "at": _now()})
            self._took[_sort(cell)].append(took)
            left = sum(map(self._expected, filter(self._is_wanted, cells[index:])))
            self._say(f"{index} of {len(cells)}, {_minutes(left)} left: {title(cell)}: {shown(cell, result)}")

    def _is_wanted(self, cell: Cell) -> bool:
        """Return whether the cell is not known yet, and took no longer than it may in the rounds before."""
        earlier = (self._results.of(replace(cell, turn=turn)) for turn in range(1, cell.turn))
        took = max((found.get("took", 0.0) for found in earlier if found is not None), default=0.0)
        return took <= self._longest and self._results.of(cell) is None

    async def _undisturbed(self, cell: Cell) -> Result:
        """Return a cell's result of the turn in which others used the machine least, of a few if they do so much."""
        best: Result = {}
        for turn in range(1, self._tries + 1):
            try:
                result = await self._measure(cell)
            except (AdapterFailed, TimeoutError, OSError) as error:
                return {"failed": str(error) or type(error).__name__}
            foreign = result["foreign"] or 0
            if not best or foreign < best["foreign"]:
                best = {**result, "tries": turn, "disturbed": foreign > self._disturbance}
            if foreign <= self._disturbance:
                break
        return best

    async def _measure(self, cell: Cell) -> Result:
        subject = self._subjects[cell.peer, cell.settings]
        match cell.column.what:
            case What.SINGLE:
                return await measure.single(subject, self._server, cell.column)
            case What.IDLE:
                most = IDLE_SHARE * (await self._size(cell))["rate"]
                return await measure.pickup(subject, self._server, cell.column, min(IDLE_RATE, most))
            case What.LOAD:
                return await measure.pickup(subject, self._server, cell.column, await self._load(cell))
            case What.SOAK:
                return await stress.soak(subject, self._server, await self._load(cell))
            case What.STRESS:
                size = await self._size(cell)
                return await stress.throughput(subject, self._server, cell.column.handler, size["jobs"])
            case _:
                size = await self._size(cell)
                return await measure.throughput(subject, self._server, cell.column, size["jobs"])

    async def _size(self, cell: Cell) -> Result:
        """Return how many jobs of this queue with this handler are worked off; all rounds have as many."""
        column = cell.column if cell.column.what in (What.THROUGHPUT, What.PINNED) else THROUGHPUT
        name = f"size.{cell.peer}.{cell.settings}.{column.handler}"
        known = self._results.get(name)
        if known is None:
            subject = self._subjects[cell.peer, cell.settings]
            known = await measure.size(subject, self._server, Column(What.THROUGHPUT, column.handler))
            self._results.put(name, known)
        return known

    async def _load(self, cell: Cell) -> float:
        """Return 70 % of the jobs a second that this machine can enqueue and run of this queue at once; all rounds
        have as many. Both have the same processors, so one job takes what enqueueing and running one takes together.
        """
        name = f"load.{cell.peer}.{cell.settings}"
        known = self._results.get(name)
        if known is None:
            runs = [
                found
                for turn in range(1, cell.turn + 1)
                if (found := self._results.of(Cell(cell.peer, cell.settings, THROUGHPUT, turn))) is not None
            ] or [await self._size(cell)]
            each = statistics.median(1 / found["rate"] + 1 / found["bulk"] for found in runs)
            known = {"rate": LOAD_SHARE / each}
            self._results.put(name, known)
        return float(known["rate"])

    def _expected(self, cell: Cell) -> float:
        known = self._took[_sort(cell)] or [took for some in self._took.values() for took in some]
        return statistics.mean(known) if known else GUESS


def title(cell: Cell) -> str:
    """Return a cell as it is said while it runs."""
    column = cell.column
    of = "callers" if column.what is What.SINGLE else "worker processes"
    return f"round {cell.turn}, {cell.peer}, {cell.settings}, {column.what}, handler {column.handler}, {of} {column.processes}"


def shown(cell: Cell, result: Result) -> str:
    """Return what a cell has found in a few words."""
    if "failed" in result:
        return f"failed: {result['failed']}"
    if "p99" in result:
        text = f"p50 {number(result['p50'])} ms, p99 {number(result['p99'])} ms"
    else:
        text = f"{number(result['rate'])} jobs/s"
    wrong = [f"{result[word]} {word}" for word in ("left", "lost", "repeated") if result.get(word)]
    return ", ".join(
        [text, *wrong, *([f"others used {result['foreign']:.2f} cores"] if result["foreign"] else [])]
    )


def _sort(cell: Cell) -> tuple[str, str]:
    return cell.settings, cell.column.name


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

"""The results as tables in Markdown: medians of the rounds, with the least and the greatest."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.comparison.cells import COLUMNS, IDLE, LOAD, PINNED, THROUGHPUT, Column, What
from benchmarks.comparison.measure import Result
from benchmarks.report import number

Key = tuple[str, str]  # queue and sort of settings
WRONG = ("lost", "repeated")
LINES = 12  # of the table of a soak
SOAK = Column(What.SOAK)


@dataclass(frozen=True, slots=True)
class Range:
    """One number of one queue, over the rounds."""

    samples: Sequence[float]
    disturbed: bool = False  # by others, who used the machine too much in a round

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    def __str__(self) -> str:
        median = f"{'~' if self.disturbed else ''}{number(self.median)}"
        if len(self.samples) == 1:
            return median
        return f"{median} [{number(min(self.samples))}-{number(max(self.samples))}]"


class Found:
    """All rounds of a run, by queue, settings and what was measured."""

    def __init__(self, results: Mapping[str, Result]) -> None:
        self._rounds: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
        for name, result in results.items():
            parts = name.split(".")
            if len(parts) == 4 and parts[3].isdigit():
                self._rounds[parts[0], parts[1], parts[2]].append(result)

    @property
    def keys(self) -> Sequence[Key]:
        """The queues and settings that were measured, the fastest first, and those that lose or repeat jobs last."""
        keys = {(peer, settings) for peer, settings, _ in self._rounds}

        def rank(key: Key) -> tuple[bool, float]:
            throughput = self.range(key, THROUGHPUT, "rate")
            return bool(self.wrong(key)), -throughput.median if throughput else 0.0

        return sorted(sorted(keys), key=rank)

    def rounds(self, key: Key, column: Column) -> Sequence[Result]:
        """Return the results of one number."""
        return self._rounds.get((*key, column.name), [])

    def range(self, key: Key, column: Column, value: str) -> Range | None:
        """Return one number over the rounds."""
        rounds = [found for found in self.rounds(key, column) if found.get(value) is not None]
        disturbed = any(found.get("disturbed") for found in rounds)
        return Range([found[value] for found in rounds], disturbed) if rounds else None

    def wrong(self, key: Key) -> str:
        """Return what a queue did wrong in a run in which nothing went wrong around it."""
        said = []
        for word in WRONG:
            worst = max((found.get(word, 0) for found in self._of(key)), default=0)
            if worst:
                said.append(f"{word} up to {worst} jobs of a cell")
        return " and ".join(said)

    def _of(self, key: Key) -> Iterator[Result]:
        for (peer, settings, _), rounds in self._rounds.items():
            if (peer, settings) == key:
                yield from rounds

    def failures(self) -> Iterator[str]:
        """Give a sentence for each cell that could not be measured."""
        for (peer, settings, column), rounds in sorted(self._rounds.items()):
            for found in rounds[:1]:
                if "failed" in found:
                    yield f"{peer}, {settings}, {column}: {found['failed'].splitlines()[-1]}"

    def unfinished(self) -> Iterator[str]:
        """Give a sentence for each number whose measurement was broken off."""
        for (peer, settings, column), rounds in sorted(self._rounds.items()):
            if left := [found["left"] for found in rounds if found.get("left")]:
                yield f"{peer}, {settings}, {column}: broken off with up to {max(left):,} jobs left"


def _micro(value: float) -> float:
    return 1e6 * value


@dataclass(frozen=True, slots=True)
class Heading:
    """A column of a table."""

    text: str
    column: Column
    value: str
    scale: Callable[[float], float] = float
    beside: Column | None = None  # the same number of which is shown as a share


THROUGHPUTS = (
    Heading("no-op", THROUGHPUT, "rate"),
    Heading("two processes", COLUMNS[1], "rate"),
    Heading("pinned", PINNED, "rate"),
    Heading("10 ms", Column(What.THROUGHPUT, "sleep"), "rate"),
    Heading("10 ms, two", Column(What.THROUGHPUT, "sleep", 2), "rate"),
    Heading("query", Column(What.THROUGHPUT, "query"), "rate"),
    Heading("query, two", Column(What.THROUGHPUT, "query", 2), "rate"),
)
COSTS = (
    Heading("client, µs", THROUGHPUT, "client", _micro),
    Heading("server, µs", THROUGHPUT, "server", _micro),
    Heading("WAL, bytes", THROUGHPUT, "wal"),
    Heading("dead rows", THROUGHPUT, "dead"),
)
TIMES = (
    Heading("bulk, jobs/s", THROUGHPUT, "bulk"),
    Heading("single, jobs/s", Column(What.SINGLE), "rate"),
    Heading("single, 16 callers", Column(What.SINGLE, processes=16), "rate"),
    Heading("idle p50, ms", IDLE, "p50"),
    Heading("idle p99, ms", IDLE, "p99"),
    Heading("at 70 % p50, ms", LOAD, "p50"),
    Heading("at 70 % p99, ms", LOAD, "p99"),
)
CLEAN = Column(What.STRESS, "clean")
STRESS = (
    Heading("clean", CLEAN, "rate"),
    *(
        Heading(text, Column(What.STRESS, name), "rate", beside=CLEAN)
        for text, name in (
            ("1 million waiting", "waiting-1m"),
            ("10 million", "waiting-10m"),
            ("1 million scheduled", "scheduled-1m"),
            ("200 queues", "queues-200"),
            ("64 idle workers", "idle-64"),
            ("1 million swept", "swept-1m"),
        )
    ),
    Heading("pickup p50 behind 1.5 million dead rows, ms", Column(What.STRESS, "dead-1500k"), "p50"),
    Heading("p99, ms", Column(What.STRESS, "dead-1500k"), "p99"),
)
TABLES = {
    "Throughput, jobs/s": THROUGHPUTS,
    "What a job costs": COSTS,
    "Enqueueing, and pickup": TIMES,
    "Under stress, jobs/s": STRESS,
}


def markdown(found: Found, title: str, headings: Sequence[Heading], keys: Sequence[Key]) -> str:
    """Return one table; what is not known of any queue is left out, and so is a queue of which nothing is."""
    headings = [
        heading
        for heading in headings
        if any(found.range(key, heading.column, heading.value) for key in keys)
    ]
    if not headings:
        return ""
    lines = [
        f"| {title} | settings | {' | '.join(heading.text for heading in headings)} |",
        f"| --- | --- |{' ---: |' * len(headings)}",
    ]
    for key in keys:
        ranges = [found.range(key, heading.column, heading.value) for heading in headings]
        if any(ranges):
            cells = [
                "" if known is None else _cell(found, key, heading, known)
                for known, heading in zip(ranges, headings, strict=True)
            ]
            name = f"**{key[0]}**" if key[0] == "forge-jobs" else key[0]
            flag = " (not ranked)" if found.wrong(key) else ""
            lines.append(f"| {name}{flag} | {key[1]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def soaks(found: Found, keys: Sequence[Key]) -> Iterator[str]:
    """Give a table for each soak: what it was like from one stretch of the run to the next."""
    for key in keys:
        for soak in found.rounds(key, SOAK):
            if samples := soak.get("samples"):
                yield "\n".join(_stretches(key, soak, samples))
            if failure := soak.get("beside_failed"):
                yield f"* What is not the pickup was looked at {len(soak.get('samples', ()))} times only: {failure}"
            for stop in soak.get("stops", ()):
                yield (
                    f"* No job began for {number(stop['seconds'])} s from minute {number(stop['at'] / 60)} on, while the server "
                    f"did: {'; '.join(stop['doing'])}"
                )


def _stretches(key: Key, soak: Result, samples: Sequence[Result]) -> Iterator[str]:
    """Give the lines of a soak's table. A pickup is the median of the stretch, its p99 the worst of it."""
    yield f"| A soak of {key[0]}, until minute | jobs/s | pickup p50, ms | p99, ms | memory, MB | dead rows | database, MB |"
    yield f"|{' ---: |' * 7}"
    before: Result = {"at": 0.0, "begun": 0}
    over_time = soak["over_time"]
    for line in range(LINES):
        part = slice(len(samples) * line // LINES, len(samples) * (line + 1) // LINES)
        if not samples[part]:
            continue
        last = samples[part][-1]
        times = [
            found
            for found in over_time[len(over_time) * line // LINES : len(over_time) * (line + 1) // LINES]
            if found
        ]
        cells = [
            last["at"] / 60,
            (last["begun"] - before["begun"]) / (last["at"] - before["at"]),
            *(
                (statistics.median(one["p50"] for one in times), max(one["p99"] for one in times))
                if times
                else (None, None)
            ),
            last["resident"] / 1e6,
            last["dead"],
            None if last.get("size") is None else last["size"] / 1e6,
        ]
        yield f"| {' | '.join('' if cell is None else number(cell) for cell in cells)} |"
        before = last


def _cell(found: Found, key: Key, heading: Heading, known: Range) -> str:
    shown = str(replace(known, samples=[heading.scale(sample) for sample in known.samples]))
    beside = found.range(key, heading.beside, heading.value) if heading.beside else None
    return f"{shown} ({known.median / beside.median:.2f})" if beside and beside.median else shown


def tables(results: Mapping[str, Result], databases: Mapping[str, Any]) -> str:
    """Return all tables, those of each database by themselves."""
    found = Found(results)
    parts = []
    for database, name in (("postgres", "PostgreSQL"), ("sqlite", "SQLite")):
        keys = [key for key in found.keys if databases.get(key[0]) == database]
        if keys:
            parts += [f"#### On {name}"]
            parts += filter(None, (markdown(found, *table, keys) for table in TABLES.items()))
            parts += soaks(found, keys)
    notes = [f"* {' '.join(key)}: {wrong}" for key in found.keys if (wrong := found.wrong(key))]
    if any(result.get("disturbed") for result in results.values()):
        notes.append(
            "* ~ others used the machine too much in a round of this cell, however often it was measured"
        )
    notes += [f"* {sentence}" for sentence in (*found.unfinished(), *found.failures())]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])

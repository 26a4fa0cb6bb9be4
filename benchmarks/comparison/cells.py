"""What is measured: a cell is one number of one queue with one sort of settings, in one round."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """What a cell measures."""

    THROUGHPUT = "throughput"  # of working off a full queue
    PINNED = "pinned"  # throughput while a transaction is open that began before the jobs were enqueued
    SINGLE = "single"  # enqueueing, one job a call
    IDLE = "idle"  # the pickup of a worker that has nothing else to do
    LOAD = "load"  # the pickup at 70 % of what the machine can enqueue and run at once
    STRESS = "stress"  # throughput, or a pickup, in a situation that is hard on a queue
    SOAK = "soak"  # the pickup at 70 % for as long as wanted, with memory and dead rows from time to time


@dataclass(frozen=True, slots=True)
class Column:
    """What is measured of every queue."""

    what: What
    handler: str = "nothing"  # or "sleep", "query"; with STRESS the situation
    processes: int = 1  # of workers; with SINGLE, how many callers wait at once

    @property
    def name(self) -> str:
        return f"{self.what}-{self.handler}-{self.processes}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement."""

    peer: str
    settings: str
    column: Column
    turn: int  # the round, from 1

    @property
    def name(self) -> str:
        """Its name on the disk."""
        return f"{self.peer}.{self.settings}.{self.column.name}.{self.turn}"


THROUGHPUT = Column(What.THROUGHPUT)
IDLE = Column(What.IDLE)
LOAD = Column(What.LOAD)
PINNED = Column(What.PINNED)
COLUMNS = (
    THROUGHPUT,
    Column(What.THROUGHPUT, processes=2),
    PINNED,
    *(Column(What.THROUGHPUT, handler, processes) for handler in ("sleep", "query") for processes in (1, 2)),
    Column(What.SINGLE),
    Column(What.SINGLE, processes=16),
    IDLE,
    LOAD,
)
COLUMN_NAMES = tuple(column.name for column in COLUMNS)
BY_DEFAULT = (THROUGHPUT, IDLE)
"""What is measured of a queue with its defaults: what they cost, and how soon they find a job."""
ON_SQLITE = tuple(
    column
    for column in COLUMNS
    if column.what in (What.THROUGHPUT, What.SINGLE, What.IDLE) and column.handler != "query"
)
"""A file has one writer and no dead rows."""


ASKED = (What.STRESS, What.SOAK)
"""What is measured only if it is named, since it takes long."""


def under(situations: Collection[str]) -> Sequence[Column]:
    """Return what is measured in these situations."""
    return [Column(What.STRESS, situation) for situation in situations]


def columns(settings: str, database: str, situations: Collection[str] = ()) -> Sequence[Column]:
    """Return what is measured of a queue on that database with those settings, in those situations."""
    if situations and settings == "best":
        return [*columns(settings, database), *under(situations), Column(What.SOAK)]
    if settings == "defaults":
        return BY_DEFAULT
    return COLUMNS if database == "postgres" else ON_SQLITE


def chosen(words: Collection[str], names: Collection[str]) -> Collection[str]:
    """Return the names that the words speak of: those that are among them, or all if none is."""
    return [name for name in names if name in words] or names


def cells(
    databases: dict[str, str],
    rounds: int,
    only: Collection[str] = (),
    alone: Collection[str] = (),
    situations: Mapping[str, Collection[str]] | None = None,
    bare: Collection[str] = (),
) -> Iterator[Cell]:
    """Give all cells, round by round; `databases` are those of the queues, `only` names queues and what is measured.

    The queues of `alone` are not measured with two worker processes; `situations` are those that a queue can be put in.
    Of `bare` loops only the throughput is measured.
    """
    hard = {column.name for some in (situations or {}).values() for column in under(some)}
    named = set(only) & {*What, *COLUMN_NAMES, *hard}
    for turn in range(1, rounds + 1):
        for peer in chosen(only, databases):
            for settings in chosen(only, ("defaults", "best")):
                for column in columns(settings, databases[peer], (situations or {}).get(peer, ())):
                    shared = column.what is not What.SINGLE and column.processes > 1
                    wanted = {column.what, column.name} & named if named else column.what not in ASKED
                    if peer in bare and (settings, column) != ("best", THROUGHPUT):
                        continue
                    if wanted and not (shared and peer in alone):
                        yield Cell(peer, settings, column, turn)

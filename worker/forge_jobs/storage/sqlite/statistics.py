"""Statistics of attempts in SQLite."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import msgspec

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.statistics import KEPT, MINUTE, KindStatistics, Minute, read
from forge_jobs.model.track_record import encoded, summed
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import micros, moment
from forge_jobs.storage.sqlite.transaction import Transaction

HOUR = timedelta(hours=1)

HAND_IN = """
INSERT INTO handed_in (process, number, minute, queue, kind, counts) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""

DUE = """
SELECT process, number, queue, kind, minute, counts FROM handed_in WHERE NOT added ORDER BY minute LIMIT ?
"""

BEFORE = "SELECT counts FROM minute_statistic WHERE minute = ? AND queue = ? AND kind = ?"

ADDED = "UPDATE handed_in SET added = 1 WHERE process = ? AND number = ? AND queue = ? AND kind = ?"

COUNTED = """
SELECT minute, queue, kind, counts FROM minute_statistic
WHERE minute >= :since AND (:queue IS NULL OR queue = :queue) AND (:kind IS NULL OR kind = :kind)
UNION ALL
SELECT minute, queue, kind, counts FROM handed_in
WHERE NOT added AND minute >= :since AND (:queue IS NULL OR queue = :queue) AND (:kind IS NULL OR kind = :kind)
"""


class SqliteStatistics:
    """`RunStatistics` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def hand_in(self, minute: Minute) -> None:
        def hand_in(transaction: Transaction) -> None:
            at = _floor(transaction.now - micros(minute.ago), MINUTE)
            transaction.execute_many(
                HAND_IN,
                [
                    (minute.process, minute.number, at, queue, kind, encoded(counts))
                    for (queue, kind), counts in minute.counts.items()
                ],
            )

        await self._database.write(hand_in)

    async def add_up(self, *, epoch: LeaderEpoch, limit: int = 10_000) -> int:
        return await self._database.write(
            lambda transaction: _add_up(transaction, limit) if leads(transaction, epoch) else 0
        )

    async def summed(
        self,
        since: timedelta,
        *,
        every: timedelta | None = None,
        queue: str | None = None,
        kind: str | None = None,
    ) -> Sequence[KindStatistics]:
        def summed_since(transaction: Transaction) -> list[KindStatistics]:
            begins = _floor(transaction.now - micros(since), MINUTE)
            rows = transaction.records(COUNTED, {"since": begins, "queue": queue, "kind": kind})
            sums: dict[tuple[int, str, str], dict[str, int]] = {}
            for row in rows:
                at = begins if every is None else _floor(row["minute"], every)
                place = at, row["queue"], row["kind"]
                sums[place] = summed([sums.get(place, {}), _decoded(row["counts"])])
            return [
                read(its_queue, its_kind, moment(at), counts)
                for (at, its_queue, its_kind), counts in sorted(sums.items())
            ]

        return await self._database.read(summed_since)


def _add_up(transaction: Transaction, limit: int) -> int:
    rows = transaction.records(DUE, (limit,))
    for row in rows:
        place = row["minute"], row["queue"], row["kind"]
        before = transaction.value(BEFORE, place)
        counts = summed([{} if before is None else _decoded(before), _decoded(row["counts"])])
        transaction.execute(
            "INSERT OR REPLACE INTO minute_statistic VALUES (?, ?, ?, ?)", (*place, encoded(counts))
        )
        transaction.execute(ADDED, (row["process"], row["number"], row["queue"], row["kind"]))
    transaction.execute("DELETE FROM handed_in WHERE added AND minute < ?", (transaction.now - micros(HOUR),))
    transaction.execute("DELETE FROM minute_statistic WHERE minute < ?", (transaction.now - micros(KEPT),))
    return len(rows)


def _floor(at: int, step: timedelta) -> int:
    """Return when the stretch of time of this length began in which a moment is."""
    return at // micros(step) * micros(step)


def _decoded(counts: str) -> Mapping[str, int]:
    return msgspec.json.decode(counts, type=dict[str, int])

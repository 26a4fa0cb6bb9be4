"""The ways over all jobs of a state in SQLite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_jobs.model.job import State
from forge_jobs.model.match import Match
from forge_jobs.storage.interface.claims import END
from forge_jobs.storage.sqlite import tags
from forge_jobs.storage.sqlite.job_filter import FITS, PLACE_FITS
from forge_jobs.storage.sqlite.places import ASKED_PRIORITY, Place
from forge_jobs.storage.sqlite.transaction import Record, Transaction


@dataclass(frozen=True, slots=True)
class StateWalk:
    """The way over all jobs of a state, along an index: which rows come next, and where the last one stands."""

    table: str
    after: str
    standing: tuple[str, ...]
    beginning: tuple[int, ...]  # before all of them
    is_backwards: bool = False  # whether the last row of the index comes first
    by_queue: bool = False  # whether the index begins with the queue, so that each queue is walked by itself
    condition: str = "true"

    @property
    def sql(self) -> str:
        """Return the statement for the next rows; their columns `at_0`, `at_1` and so on are where they stand."""
        pos = "place.pos" if self.table == "ready" else "NULL"
        standing = ", ".join(f"{column} AS at_{number}" for number, column in enumerate(self.standing))
        way = ", ".join(f"{column} DESC" if self.is_backwards else column for column in self.standing)
        return f"""
            SELECT job.id, place.queue_id, job.priority, {ASKED_PRIORITY} AS asked_priority, job.kind, job.key, place.attempt, {pos} AS pos,
                   job.created_at, job.groups, job.tenant, {standing}
            FROM {self.table} AS place CROSS JOIN job ON job.id = place.job_id
            WHERE {self.after} AND place.job_id <= :last
            ORDER BY {way} LIMIT :limit
        """

    def at(self, standing: Sequence[int]) -> dict[str, int]:
        """Return a standing by the names of its columns."""
        return {f"at_{number}": value for number, value in enumerate(standing)}

    def standing_of(self, row: Record) -> dict[str, int]:
        """Return where a row of the statement stands."""
        return self.at([row[f"at_{number}"] for number in range(len(self.standing))])


def _against_claim_order() -> StateWalk:
    """Return the walk over pending jobs: one that rises meanwhile is before those that were looked at."""
    after = "place.queue_id = :queue_id AND (place.priority, place.pos, place.job_id) < (:at_0, :at_1, :at_2)"
    standing = ("place.priority", "place.pos", "place.job_id")
    return StateWalk("ready", after, standing, (*END, 0), is_backwards=True, by_queue=True)


def _by_end(state: State) -> StateWalk:
    of_state = f"place.queue_id = :queue_id AND place.state = '{state}' AND place.finished_at <= :until"
    return StateWalk(
        "finished",
        f"{of_state} AND (place.finished_at, place.job_id) > (:at_0, :at_1)",
        ("place.finished_at", "place.job_id"),
        (0, 0),
        by_queue=True,
        condition=f"place.state = '{state}'",
    )


def _by_id(table: str, condition: str) -> StateWalk:
    after = f"place.job_id > :at_0 AND (:queue_id IS NULL OR place.queue_id = :queue_id) AND {condition}"
    return StateWalk(table, after, ("place.job_id",), (0,), condition=condition)


WALKS = {
    State.PENDING: _against_claim_order(),
    State.SCHEDULED: _by_id("scheduled", "place.reason <> 'retry'"),
    State.RETRYING: _by_id("scheduled", "place.reason = 'retry'"),
    State.BLOCKED: _by_id("blocked", "true"),
    State.WAITING: _by_id("waiting", "true"),
    State.IN_PROGRESS: _by_id("claimed", "place.cancel_requested_at IS NULL"),
    State.DONE: _by_end(State.DONE),
    State.DEAD: _by_end(State.DEAD),
    State.EXPIRED: _by_end(State.EXPIRED),
}

# Along the tags, from job to job. The state is that of the view, which looks at a row of each table for each job.
TAGGED = """
SELECT job.id, job.queue_id, job.priority, {asked} AS asked_priority, job.kind, job.key,
       coalesce(jobs.attempt, ready.attempt) AS attempt, ready.pos, job.created_at, job.groups, job.tenant, job.id AS at_0,
       jobs.state = :state AND (:queue_id IS NULL OR job.queue_id = :queue_id) AND {has_all}
       AND jobs.cancel_requested_at IS NULL AND (jobs.finished_at IS NULL OR jobs.finished_at <= :until) AS is_meant
FROM (SELECT job_id FROM job_tag
      WHERE tag = :tag AND job_id > :at_0 AND job_id <= :last ORDER BY job_id LIMIT :limit) AS seen
CROSS JOIN job ON job.id = seen.job_id
JOIN jobs ON jobs.id = job.id
LEFT JOIN ready ON ready.queue_id = job.queue_id AND ready.priority = job.priority
               AND ready.pos = job.created_at AND ready.job_id = job.id
ORDER BY job.id
""".replace("{has_all}", tags.HAS_ALL).replace("{asked}", ASKED_PRIORITY)

COUNT = """
SELECT count(*) FROM {table} AS place
WHERE {condition} AND (:queue IS NULL OR place.queue_id = (SELECT id FROM queue WHERE name = :queue))
  AND {fits}
""".replace("{fits}", PLACE_FITS)

COUNT_TAGGED = """
SELECT count(*)
FROM job_tag CROSS JOIN job ON job.id = job_tag.job_id JOIN jobs ON jobs.id = job.id
WHERE job_tag.tag = :tag AND jobs.state = :state AND jobs.cancel_requested_at IS NULL
  AND (:queue IS NULL OR job.queue_id = (SELECT id FROM queue WHERE name = :queue))
  AND {fits} AND {has_all}
""".replace("{has_all}", tags.HAS_ALL).replace("{fits}", FITS)


def queue_ids(transaction: Transaction, match: Match) -> list[int | None]:
    """Return the queues that are walked over one by one; None: all of them at once."""
    if match.queue is None and (match.tags or not WALKS[match.state].by_queue):
        return [None]
    rows = transaction.rows(
        "SELECT id FROM queue WHERE :queue IS NULL OR name = :queue ORDER BY id", {"queue": match.queue}
    )
    return [row[0] for row in rows]


def beginning(match: Match) -> dict[str, int]:
    """Return a place before all jobs of the walk."""
    walk = WALKS[match.state]
    return walk.at([0] if match.tags else walk.beginning)


def batch(
    transaction: Transaction, match: Match, wanted: dict[str, Any]
) -> tuple[dict[str, int] | None, list[Place]]:
    """Return where the last one of the next rows stands, None after the last batch, and which of these jobs are meant.

    `limit` bounds how many rows are looked at, not how many are met: of a rare kind there may be none for long.
    """
    if match.tags:
        return _tagged_batch(transaction, match, wanted)
    walk = WALKS[match.state]
    rows = transaction.records(walk.sql, wanted)
    standing = walk.standing_of(rows[-1]) if len(rows) == wanted["limit"] else None
    places = [_place(row, match.state) for row in rows]
    return standing, [place for place in places if match.fits(place.kind, place.key, place.groups)]


def _tagged_batch(
    transaction: Transaction, match: Match, wanted: dict[str, Any]
) -> tuple[dict[str, int] | None, list[Place]]:
    said = {
        "tags": tags.encoded(match.tags),
        "tag": tags.rarest(transaction, match.tags),
        "state": match.state,
    }
    rows = transaction.records(TAGGED, wanted | said)
    standing = {"at_0": rows[-1]["at_0"]} if len(rows) == wanted["limit"] else None
    meant: list[Any] = [
        row for row in rows if row["is_meant"] and match.fits(row["kind"], row["key"], row["groups"])
    ]
    if match.state is State.PENDING:
        meant = _found_in_ready(transaction, meant)
    return standing, [_place(row, match.state) for row in meant]


def _found_in_ready(transaction: Transaction, rows: Sequence[Any]) -> list[Any]:
    """Return the rows with their places in `ready`: one scan finds those that became ready later than they were enqueued."""
    far = ", ".join(str(row["id"]) for row in rows if row["pos"] is None)  # ids, from the database
    if not far:
        return list(rows)
    found = transaction.records(f"SELECT job_id, pos, attempt FROM ready WHERE job_id IN ({far})")
    places = {row["job_id"]: {"pos": row["pos"], "attempt": row["attempt"]} for row in found}
    return [{**row, **places.get(row["id"], {})} for row in rows]


def _place(row: Any, state: State) -> Place:
    return Place(
        row["id"],
        state,
        row["queue_id"],
        row["priority"],
        row["asked_priority"],
        row["kind"],
        row["key"],
        row["attempt"],
        row["pos"],
        row["created_at"],
        row["groups"],
        row["tenant"],
    )


def count(
    transaction: Transaction, state: State, which: Mapping[str, str | None], with_tags: Sequence[str]
) -> int:
    """Return how many jobs a walk over the state would meet: those of `which` queue, kind, key and group, with the tags."""
    wanted: dict[str, Any] = {**which}
    walk = WALKS[state]
    statement = COUNT.replace("{table}", walk.table).replace("{condition}", walk.condition)
    if with_tags:
        statement = COUNT_TAGGED
        wanted |= {
            "tags": tags.encoded(with_tags),
            "tag": tags.rarest(transaction, with_tags),
            "state": state,
        }
    jobs: int = transaction.value(statement, wanted)
    return jobs

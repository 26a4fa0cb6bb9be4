"""Groups in SQLite. Whoever writes is alone, so what is free when somebody looks is free when it is given away."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from forge_jobs.errors import UnknownGroup
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.facts import FullGroup
from forge_jobs.model.group import Group, GroupStatus, Overflow, decoded, has_groups
from forge_jobs.model.job import Claim
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.jobs import AHEAD_LIMIT
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import duration, micros, moment
from forge_jobs.storage.sqlite.revision import configured
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Record, Row, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready

ALL = """
SELECT known.name, coalesce(set_limit, said, 1) AS "limit", set_limit,
       (SELECT count(*) FROM occupant WHERE occupant.group_id = job_group.id) AS occupants,
       (SELECT count(*) FROM blocked WHERE blocked.group_id = job_group.id) AS blocked,
       paused_group.name IS NOT NULL AS paused, paused_group.until AS paused_until, paused_group.reason AS pause_reason
FROM (SELECT name FROM job_group UNION SELECT name FROM paused_group) AS known
LEFT JOIN job_group USING (name) LEFT JOIN paused_group USING (name)
WHERE :name IS NULL OR known.name = :name ORDER BY known.name LIMIT :limit
"""

SAY = """
INSERT INTO job_group (name, said, said_at) VALUES (:name, coalesce(:limit, :of_queue, 1), iif(:limit IS NULL, 0, :at))
ON CONFLICT (name) DO UPDATE SET said = excluded.said, said_at = excluded.said_at
WHERE iif(:limit IS NULL, job_group.said_at = 0 AND job_group.said <> :of_queue, job_group.said_at <= :at)
RETURNING id
"""

FREE = """
SELECT coalesce(set_limit, said) - (SELECT count(*) FROM occupant WHERE group_id = id),
       EXISTS (SELECT 1 FROM paused_group WHERE paused_group.name = job_group.name)
FROM job_group WHERE id = ?
"""

IDS = "SELECT id FROM job_group WHERE name IN (SELECT value FROM json_each(?))"

SET = "UPDATE job_group SET set_limit = ? WHERE name = ? RETURNING id"
PAUSE = "INSERT OR REPLACE INTO paused_group (name, until, reason, paused_at) VALUES (?, ?, ?, ?)"

# The jobs that are pending in paused groups, those that have waited longest last.
PENDING = """
SELECT job_id, queue_id, attempt, priority, pos FROM ready
WHERE job_id IN (
    SELECT occupant.job_id FROM occupant JOIN job_group ON job_group.id = occupant.group_id JOIN paused_group USING (name)
    WHERE occupant.job_id NOT IN (SELECT job_id FROM claimed))
ORDER BY pos DESC, job_id DESC
"""

PAUSED_OF = """
SELECT job_group.id FROM occupant JOIN job_group ON job_group.id = occupant.group_id JOIN paused_group USING (name)
WHERE occupant.job_id = ? ORDER BY 1 LIMIT 1
"""

NEXT = """
SELECT job_id, queue_id, attempt, priority, pos, groups FROM blocked
WHERE group_id = ? AND (groups IS NULL OR groups NOT IN (SELECT value FROM json_each(?)))
ORDER BY priority, pos, job_id LIMIT 1
"""

# Those that wait for a place in the group, in whatever line they stand.
IN_LINE = """
SELECT job_id FROM blocked WHERE group_id = :group_id OR :group_id IN (SELECT value FROM json_each(coalesce(groups, '[]')))
"""

STALE = """
SELECT DISTINCT job_id FROM occupant
WHERE job_id IN (SELECT job_id FROM finished) OR job_id IN (SELECT job_id FROM scheduled)
   OR job_id IN (SELECT job_id FROM blocked) OR job_id IN (SELECT job_id FROM waiting) OR job_id NOT IN (SELECT id FROM job)
"""

LINES = "SELECT DISTINCT group_id FROM blocked WHERE group_id IS NOT NULL"

FORGET = """
DELETE FROM job_group
WHERE set_limit IS NULL AND id NOT IN (SELECT group_id FROM occupant) AND id NOT IN (SELECT group_id FROM blocked WHERE group_id IS NOT NULL)
  AND id NOT IN (SELECT each.value FROM blocked JOIN json_each(blocked.groups) AS each)
"""

FULL = f"""
SELECT job_group.name, coalesce(set_limit, said) AS "limit", first.job_id AS holder, claimed.claimed_at AS holder_since,
       queue.name AS paused_queue, paused_kind.kind AS paused_kind,
       iif(queue.id IS NULL, paused_kind.until, queue.paused_until) AS holder_paused_until,
       iif(queue.id IS NULL, paused_kind.reason, queue.pause_reason) AS holder_pause_reason,
       iif(job_group.id = mine.group_id, (SELECT count(*) FROM (
           SELECT 1 FROM blocked AS other
           WHERE other.group_id = mine.group_id
             AND (other.priority, other.pos, other.job_id) < (mine.priority, mine.pos, mine.job_id)
           LIMIT :most)), NULL) AS ahead,
       paused_group.name IS NOT NULL AS paused, paused_group.until AS paused_until, paused_group.reason AS pause_reason
FROM blocked AS mine
JOIN json_each(coalesce(mine.groups, json_array(mine.group_id))) AS one
JOIN job_group ON job_group.id = one.value
LEFT JOIN paused_group ON paused_group.name = job_group.name
LEFT JOIN occupant AS first ON first.group_id = job_group.id AND first.job_id = (
    SELECT job_id FROM occupant WHERE occupant.group_id = job_group.id ORDER BY since, job_id LIMIT 1)
LEFT JOIN claimed ON claimed.job_id = first.job_id
LEFT JOIN job ON job.id = first.job_id AND claimed.job_id IS NULL
LEFT JOIN queue ON queue.id = job.queue_id AND queue.paused AND {IS_OPEN}
LEFT JOIN paused_kind ON paused_kind.kind = job.kind
WHERE mine.job_id = :id
  AND (paused_group.name IS NOT NULL
       OR coalesce(set_limit, said) <= (SELECT count(*) FROM occupant WHERE occupant.group_id = job_group.id))
ORDER BY ahead IS NULL, job_group.name
"""


class Joining(NamedTuple):
    """A job that is in no state and asks for its places."""

    id: int
    pos: int
    queue_id: int
    attempt: int
    priority: int
    groups: str
    asked_at: int
    is_new: bool  # it asks for the first time


class Joined(NamedTuple):
    """What became of jobs besides that they are ready or blocked."""

    dropped: dict[int, int]  # jobs in no state, as their groups say, each with one that has its place
    in_way: list[int]  # jobs that have to be cancelled, as newer ones say


class SqliteGroups:
    """`Groups` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def all(self, *, name: str | None = None, limit: int = 10_000) -> list[GroupStatus]:
        asked = {"name": name, "limit": limit}
        rows = await self._database.read(lambda transaction: transaction.records(ALL, asked))
        return [
            GroupStatus(**{**row, "paused": bool(row["paused"]), "paused_until": moment(row["paused_until"])})
            for row in rows
        ]

    async def set(self, name: str, limit: int | None, *, by: str | None = None) -> None:
        def set(transaction: Transaction) -> None:
            if limit is not None:
                _say(transaction, Group(name), transaction.now)
            if (found := transaction.value(SET, (limit, name))) is None:
                raise UnknownGroup(name)
            said = f"limit {limit or 'of its jobs'}"
            interventions.note_of(transaction, [f"group {name}"], "changed", by, said)
            admit(transaction, [found])

        await self._database.write(set)

    async def pause(
        self, name: str, *, until: datetime | None, reason: str | None, by: str | None = None
    ) -> None:
        def pause(transaction: Transaction) -> None:
            transaction.execute(PAUSE, (name, micros(until), reason, transaction.now))
            interventions.note_of(transaction, [f"group {name}"], "paused", by, reason)
            withdraw(transaction)
            configured(transaction)

        await self._database.write(pause)

    async def resume(self, name: str, *, by: str | None = None) -> bool:
        def resume(transaction: Transaction) -> bool:
            ended = transaction.rows("DELETE FROM paused_group WHERE name = ? RETURNING name", (name,))
            interventions.note_of(transaction, [f"group {name}" for _ in ended], "resumed", by)
            return bool(_resumed(transaction, ended))

        return await self._database.write(resume)

    async def paused(self) -> Mapping[str, datetime]:
        rows = await self._database.read(
            lambda transaction: transaction.rows("SELECT name, paused_at FROM paused_group ORDER BY name")
        )
        return {name: moment(paused_at) for name, paused_at in rows}

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        next_in = await self._database.read(_next_pause_end)  # so that looking keeps no writer waiting
        if next_in is None or next_in > timedelta(0):
            return (), next_in
        return await self._database.write(_end_pauses)

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        def audit(transaction: Transaction) -> int:
            if not leads(transaction, epoch):
                return 0
            stale = [row[0] for row in transaction.rows(STALE)]
            leave(transaction, stale)
            withdrawn = withdraw(transaction)
            return len(stale) + withdrawn + admit_all(transaction)

        return await self._database.write(audit)

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        def forget(transaction: Transaction) -> None:
            if leads(transaction, epoch):
                transaction.execute(FORGET)

        await self._database.write(forget)


def full_groups(transaction: Transaction, job_id: int) -> list[FullGroup]:
    """Return the groups of a blocked job that have no place, that in whose line it stands first."""
    rows = transaction.records(FULL, {"id": job_id, "most": AHEAD_LIMIT})
    moments = ("holder_since", "paused_until", "holder_paused_until")
    return [
        FullGroup(**{**row, "paused": bool(row["paused"]), **{name: moment(row[name]) for name in moments}})
        for row in rows
    ]


def join(transaction: Transaction, jobs: Sequence[Joining]) -> Joined:
    """These jobs are ready at their places, or blocked, in their order."""
    dropped: dict[int, int] = {}
    in_way: list[int] = []
    limits: dict[int, int | None] = dict(transaction.rows("SELECT id, group_limit FROM queue"))
    for job in jobs:
        rules = decoded(job.groups)
        asked_at, limit = job.asked_at, limits[job.queue_id]
        ids = {name: _say(transaction, rule, asked_at, of_queue=limit) for name, rule in rules.items()}
        full = [
            name
            for name, group_id in sorted(ids.items(), key=lambda item: item[1])
            if not _is_free(transaction, group_id)
        ]
        if not full:
            _let_in(transaction, job.id, list(ids.values()), job.pos, job.queue_id, job.attempt, job.priority)
            count_move(transaction, [job.queue_id], None, "pending")
            continue
        # one that has waited here or run before waits for its turn
        overflows = {name: rules[name].overflow for name in full} if job.is_new else {}
        dropping = [ids[name] for name, overflow in overflows.items() if overflow == Overflow.DROP_NEWEST]
        # one that is full only because it is paused has as many who wait as it has places
        if holders := [
            [*_occupants(transaction, one), *_line(transaction, one)]
            for one in dropping
            if _free(transaction, one) <= len(_line(transaction, one))
        ]:
            dropped[job.id] = holders[0][0]
            continue
        for name, overflow in overflows.items():
            if overflow == Overflow.CANCEL_RUNNING:
                in_way += [row[0] for row in transaction.rows(IN_LINE, {"group_id": ids[name]})]
                if _free(transaction, ids[name]) <= 0:
                    in_way.append(_occupants(transaction, ids[name])[0])
        _stand_in_line(transaction, job, ids[full[0]], sorted(ids.values()))
        count_move(transaction, [job.queue_id], None, "blocked")
    return Joined(dropped, in_way)


def leave(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs have no place in any group any more, and those that stand in line get what is free now."""
    ids = json.dumps(list(job_ids))
    vacated = transaction.rows(
        "DELETE FROM occupant WHERE job_id IN (SELECT value FROM json_each(?)) RETURNING group_id", (ids,)
    )
    admit(transaction, sorted({row[0] for row in vacated}))


def withdraw(transaction: Transaction) -> int:
    """The jobs that are pending in paused groups stand in line again, before those that stand there; return how many."""
    if not transaction.value("SELECT EXISTS (SELECT 1 FROM paused_group)"):
        return 0  # nobody has to look for them in all that is ready
    rows = transaction.records(PENDING)
    for row in rows:
        job_id, priority = row["job_id"], row["priority"]
        group_id = transaction.value(PAUSED_OF, (job_id,))
        front = transaction.value(
            "SELECT min(pos) FROM blocked WHERE group_id = ? AND priority = ?", (group_id, priority)
        )
        pos = row["pos"] if front is None else min(row["pos"], front - 1)
        transaction.execute(
            "DELETE FROM ready WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?",
            (row["queue_id"], priority, row["pos"], job_id),
        )
        groups = transaction.rows("DELETE FROM occupant WHERE job_id = ? RETURNING group_id", (job_id,))
        its_groups = sorted(one for (one,) in groups)
        job = Joining(job_id, pos, row["queue_id"], row["attempt"], priority, "", pos, is_new=False)
        _stand_in_line(transaction, job, group_id, its_groups)
        count_move(transaction, [row["queue_id"]], "pending", "blocked")
        admit(transaction, its_groups)
    return len(rows)


def admit_all(transaction: Transaction) -> int:
    """Free places of all groups are given to the jobs that stand in their lines; return how many were."""
    return admit(transaction, [row[0] for row in transaction.rows(LINES)])


def take_place(transaction: Transaction, job_id: int, name: str) -> None:
    """The job has a place in the group of this name, also when there is none left."""
    transaction.execute(
        "INSERT INTO occupant (job_id, group_id, since) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (job_id, _say(transaction, Group(name), transaction.now), transaction.now),
    )


def ids_of(transaction: Transaction, groups: str | None) -> list[int]:
    """Return the ids of these groups, as far as they are known."""
    return [one for (one,) in transaction.rows(IDS, (json.dumps(list(decoded(groups))),))]


def keeps_place(before: str | None, groups: str | None) -> bool:
    """Whether a job that says `groups` keeps the places that it has by what it said before."""
    return decoded(before).keys() == decoded(groups).keys()


def say(transaction: Transaction, groups: str | None) -> None:
    """What a job says now of these groups holds; jobs that wait get what is free then."""
    for rule in decoded(groups).values():
        _say(transaction, rule, transaction.now)


def leave_of(transaction: Transaction, claims: Iterable[Claim]) -> None:
    """The jobs of these claims, which were taken back, have no places in groups; others get what is free now."""
    if linked := [claim.job_id for claim in claims if has_groups(claim.links)]:
        leave(transaction, linked)


def admit(transaction: Transaction, groups: Iterable[int]) -> int:
    """Free places of these groups are given to the jobs that stand in their lines; return how many were.

    A job of several groups that has no place in another one goes over to the line of that one.
    """
    todo = list(groups)
    admitted: list[int] = []
    while todo:
        group_id = todo.pop()
        refused: list[str] = []  # the sets of groups of which one has no place
        while _is_free(transaction, group_id):
            rows = transaction.records(NEXT, (group_id, json.dumps(refused)))
            if not rows:
                break
            [job] = rows
            of_job = [group_id] if job["groups"] is None else json.loads(job["groups"])
            full = [one for one in of_job if not _is_free(transaction, one)]
            todo += [one for one in of_job if one != group_id]
            if full:
                refused.append(job["groups"])
                transaction.execute(
                    "UPDATE blocked SET group_id = ? WHERE job_id = ?", (full[0], job["job_id"])
                )
                continue
            _admit(transaction, job, of_job, transaction.now + len(admitted))
            admitted.append(job["queue_id"])
    count_move(transaction, admitted, "blocked", "pending")
    return len(admitted)


def _admit(transaction: Transaction, job: Record, groups: Sequence[int], pos: int) -> None:
    transaction.execute("DELETE FROM blocked WHERE job_id = ?", (job["job_id"],))
    _let_in(transaction, job["job_id"], groups, pos, job["queue_id"], job["attempt"], job["priority"])


def _let_in(
    transaction: Transaction,
    job_id: int,
    groups: Sequence[int],
    pos: int,
    queue_id: int,
    attempt: int,
    priority: int,
) -> None:
    transaction.execute_many(
        "INSERT INTO occupant (job_id, group_id, since) VALUES (?, ?, ?)",
        [(job_id, group_id, transaction.now) for group_id in groups],
    )
    make_ready(transaction, [(job_id, pos, queue_id, attempt, priority)])


def _stand_in_line(transaction: Transaction, job: Joining, group_id: int, groups: Sequence[int]) -> None:
    transaction.execute(
        "INSERT INTO blocked (job_id, group_id, pos, queue_id, attempt, priority, groups) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            job.id,
            group_id,
            job.pos,
            job.queue_id,
            job.attempt,
            job.priority,
            json.dumps(groups) if len(groups) > 1 else None,
        ),
    )


def _say(transaction: Transaction, group: Group, at: int, *, of_queue: int | None = None) -> int:
    """The group has the limit that this says, or its queue where nobody ever did; jobs get what is free. Return its id."""
    said = transaction.value(SAY, {"name": group.name, "limit": group.limit, "of_queue": of_queue, "at": at})
    if said is not None:
        admit(transaction, [said])
    group_id: int = transaction.value("SELECT id FROM job_group WHERE name = ?", (group.name,))
    return group_id


def _is_free(transaction: Transaction, group_id: int) -> bool:
    free, is_paused = transaction.rows(FREE, (group_id,))[0]
    return bool(free > 0 and not is_paused)


def _free(transaction: Transaction, group_id: int) -> int:
    """Return how many places the group has, also while it is paused and gives none away."""
    free: int = transaction.rows(FREE, (group_id,))[0][0]
    return free


def _line(transaction: Transaction, group_id: int) -> list[int]:
    rows = transaction.rows(
        "SELECT job_id FROM blocked WHERE group_id = ? ORDER BY priority, pos, job_id", (group_id,)
    )
    return [row[0] for row in rows]


def _resumed(transaction: Transaction, ended: Sequence[Row]) -> list[str]:
    """These groups are paused no more: they give their places away, and workers are told; return their names."""
    names = sorted(name for (name,) in ended)
    if names:
        admit(transaction, [one for (one,) in transaction.rows(IDS, (json.dumps(names),))])
        configured(transaction)
    return names


def _end_pauses(transaction: Transaction) -> tuple[Sequence[str], timedelta | None]:
    ended = transaction.rows("DELETE FROM paused_group WHERE until <= ? RETURNING name", (transaction.now,))
    return _resumed(transaction, ended), _next_pause_end(transaction)


def _next_pause_end(transaction: Transaction) -> timedelta | None:
    """Return how long it is until a pause ends; see `kinds`."""
    micros_left: int | None = transaction.value("SELECT min(until) - ? FROM paused_group", (transaction.now,))
    return duration(micros_left)


def _occupants(transaction: Transaction, group_id: int) -> list[int]:
    rows = transaction.rows(
        "SELECT job_id FROM occupant WHERE group_id = ? ORDER BY since, job_id", (group_id,)
    )
    return [row[0] for row in rows]

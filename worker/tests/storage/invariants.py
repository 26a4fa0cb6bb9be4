"""What is true of every database at every moment, whatever was done to it."""

import json
from collections import Counter
from typing import Any

from forge_jobs.model.group import GROUPS, decoded
from forge_jobs.model.job import Counts
from forge_jobs.storage.interface.storage import Storage
from tests.storage.databases import Database

STATES = ("scheduled", "blocked", "ready", "claimed", "finished")


async def check_invariants(storage: Storage, database: Database) -> None:
    """Assert all of them."""
    await _each_job_is_in_exactly_one_place(database)
    await _living_keys_belong_to_living_jobs(database)
    await _holds_are_of_the_kinds_of_their_jobs(database)
    await _no_queue_has_more_held_slots_than_its_concurrency(database)
    await _counts_are_true(storage, database)
    await _failures_belong_to_jobs(database)
    if database.kind == "postgres":
        await _done_jobs_are_noted_with_their_moments(database)
    await _places_in_groups_are_those_of_pending_and_running_jobs(database)
    await _no_job_is_blocked_whose_groups_have_a_place(database)
    assert await database.left_open(storage) == []


async def _each_job_is_in_exactly_one_place(database: Database) -> None:
    jobs = {row[0] for row in await database.rows("SELECT id FROM job")}
    places: Counter[int] = Counter()
    for table in STATES:
        places.update(row[0] for row in await database.rows(f"SELECT job_id FROM {table}"))
    assert set(places) <= jobs, f"in a state without being a job: {sorted(set(places) - jobs)}"
    assert jobs <= set(places), f"jobs that are nowhere: {sorted(jobs - set(places))}"
    assert max(places.values(), default=1) == 1, (
        f"in two places: {[one for one, n in places.items() if n > 1]}"
    )


async def _living_keys_belong_to_living_jobs(database: Database) -> None:
    """A running job may have lost its key to another one; a waiting one has it."""
    keys = {tuple(row) for row in await database.rows("SELECT job_id, kind, key FROM job_key")}
    keyed = "SELECT id, kind, key FROM job WHERE key IS NOT NULL AND id NOT IN (SELECT job_id FROM finished)"
    living = {tuple(row) for row in await database.rows(keyed)}
    waiting = await database.rows(f"{keyed} AND id NOT IN (SELECT job_id FROM claimed)")
    assert keys <= living
    assert {tuple(row) for row in waiting} <= keys


async def _holds_are_of_the_kinds_of_their_jobs(database: Database) -> None:
    """A hold may outlive its job."""
    others = "SELECT job_id FROM unique_hold JOIN job ON job.id = unique_hold.job_id WHERE job.kind <> unique_hold.kind"
    assert await database.rows(others) == []
    assert await database.rows("SELECT job_id FROM unique_hold WHERE until < since") == []


async def _no_queue_has_more_held_slots_than_its_concurrency(database: Database) -> None:
    over = await database.rows(
        "SELECT queue.name, queue.concurrency, count(*) FROM queue JOIN slot ON slot.queue_id = queue.id "
        "WHERE slot.worker_id IS NOT NULL GROUP BY queue.name, queue.concurrency "
        "HAVING count(*) > coalesce(queue.concurrency, 0)"
    )
    assert over == []
    strangers = (
        "SELECT worker_id FROM slot WHERE worker_id IS NOT NULL AND worker_id NOT IN (SELECT id FROM worker)"
    )
    assert await database.rows(strangers) == []


async def _places_in_groups_are_those_of_pending_and_running_jobs(database: Database) -> None:
    names = {row[0]: row[1] for row in await database.rows("SELECT id, name FROM job_group")}
    taken = {(row[0], names[row[1]]) for row in await database.rows("SELECT job_id, group_id FROM occupant")}
    active = {
        row[0] for table in ("ready", "claimed") for row in await database.rows(f"SELECT job_id FROM {table}")
    }
    linked = await database.rows(
        "SELECT id, links, groups FROM job WHERE links IS NOT NULL OR groups IS NOT NULL"
    )
    assert all(links == GROUPS for _, links, _ in linked)
    assert taken == {(job, name) for job, _, groups in linked if job in active for name in decoded(groups)}
    scheduled = await database.rows("SELECT job_id FROM scheduled WHERE links IS NOT NULL")
    ids = {row[0] for row in linked}
    assert {row[0] for row in scheduled} == ids & {
        row[0] for row in await database.rows("SELECT job_id FROM scheduled")
    }
    assert {row[0] for row in await database.rows("SELECT job_id FROM blocked")} <= ids
    of_paused = (
        "SELECT occupant.job_id FROM occupant JOIN job_group ON job_group.id = occupant.group_id "
        "JOIN paused_group ON paused_group.name = job_group.name"
    )
    running = {row[0] for row in await database.rows("SELECT job_id FROM claimed")}
    assert {row[0] for row in await database.rows(of_paused)} <= running


async def _no_job_is_blocked_whose_groups_have_a_place(database: Database) -> None:
    limits = {
        row[0]: row[1] for row in await database.rows("SELECT id, coalesce(set_limit, said) FROM job_group")
    }
    taken = Counter(row[0] for row in await database.rows("SELECT group_id FROM occupant"))
    paused = "SELECT id FROM job_group JOIN paused_group ON paused_group.name = job_group.name"
    full = {group for group, limit in limits.items() if taken[group] >= limit}
    full |= {row[0] for row in await database.rows(paused)}
    for job, line, groups in await database.rows("SELECT job_id, group_id, groups FROM blocked"):
        of_job = {line} if groups is None else set(json.loads(groups) if isinstance(groups, str) else groups)
        assert line in of_job <= set(limits), f"job {job} stands in a line that is not of its groups"
        assert of_job & full, f"job {job} is blocked, and no group of it is full"


async def _failures_belong_to_jobs(database: Database) -> None:
    assert await database.rows("SELECT job_id FROM failure WHERE job_id NOT IN (SELECT id FROM job)") == []
    long = "SELECT job_id, count(*) FROM failure GROUP BY job_id HAVING count(*) > 32"
    assert await database.rows(long) == []


async def _done_jobs_are_noted_with_their_moments(database: Database) -> None:
    forgotten = await database.rows(
        "SELECT job_id FROM finished WHERE state = 'done' AND NOT EXISTS (SELECT FROM done_together AS noted "
        "WHERE noted.queue_id = finished.queue_id AND noted.at = finished.finished_at "
        "AND job_id BETWEEN first_id AND last_id AND (job_ids IS NULL OR job_id = ANY (job_ids)))"
    )
    assert forgotten == []


async def _counts_are_true(storage: Storage, database: Database) -> None:
    said = {counts.queue: _numbers(counts) for counts in await storage.jobs.counts()}
    names = {
        queue.id: queue.name for queue in await storage.queues.all()
    }  # of what is deleted nothing is said
    real: dict[str, dict[str, Any]] = {name: _numbers(Counts(name)) for name in names.values()}
    for field, sql in COUNTED.items():
        for queue_id, count in await database.rows(sql):
            if queue_id in names:
                real[names[queue_id]][field] = count
    assert said == real


COUNTED = {
    "pending": "SELECT queue_id, count(*) FROM ready GROUP BY queue_id",
    "scheduled": "SELECT queue_id, count(*) FROM scheduled GROUP BY queue_id",
    "blocked": "SELECT queue_id, count(*) FROM blocked GROUP BY queue_id",
    "in_progress": "SELECT queue_id, count(*) FROM claimed GROUP BY queue_id",
    "done": "SELECT queue_id, count(*) FROM finished WHERE state = 'done' GROUP BY queue_id",
    "dead": "SELECT queue_id, count(*) FROM finished WHERE state = 'dead' GROUP BY queue_id",
}


def _numbers(counts: Counts) -> dict[str, Any]:
    return {field: getattr(counts, field) for field in COUNTED}

"""What is true of every database at every moment, whatever was done to it."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from forge_jobs.model.group import decoded
from forge_jobs.model.job import Counts
from forge_jobs.model.links import GROUPS
from forge_jobs.model.tenant import has_tenant
from forge_jobs.storage.interface.storage import Storage
from tests.storage.databases import Database

STATES = ("scheduled", "blocked", "waiting", "ready", "claimed", "finished")


KEYED = "SELECT id, kind, key FROM job WHERE key IS NOT NULL AND id NOT IN (SELECT job_id FROM finished)"

READ = {
    "jobs": "SELECT id FROM job",
    **{table: f"SELECT job_id FROM {table}" for table in STATES},
    "keys": "SELECT job_id, kind, key FROM job_key",
    "living keyed jobs": KEYED,
    "waiting keyed jobs": f"{KEYED} AND id NOT IN (SELECT job_id FROM claimed)",
    "holds of other kinds": (
        "SELECT job_id FROM unique_hold JOIN job ON job.id = unique_hold.job_id WHERE job.kind <> unique_hold.kind"
    ),
    "holds that end before they begin": "SELECT job_id FROM unique_hold WHERE until < since",
    "queues with too many slots": (
        "SELECT queue.name, queue.concurrency, count(*) FROM queue JOIN slot ON slot.queue_id = queue.id "
        "WHERE slot.worker_id IS NOT NULL GROUP BY queue.name, queue.concurrency "
        "HAVING count(*) > coalesce(queue.concurrency, 0)"
    ),
    "slots of strangers": (
        "SELECT worker_id FROM slot WHERE worker_id IS NOT NULL AND worker_id NOT IN (SELECT id FROM worker)"
    ),
    "groups": "SELECT id, name, coalesce(set_limit, said) FROM job_group",
    "occupants": "SELECT job_id, group_id FROM occupant",
    "linked jobs": "SELECT id, links, groups FROM job WHERE links & 3 <> 0 OR groups IS NOT NULL",
    "linked scheduled jobs": "SELECT job_id FROM scheduled WHERE links & 3 <> 0",
    "jobs of tenants": "SELECT id, links, tenant FROM job WHERE links IS NOT NULL OR tenant IS NOT NULL",
    "occupants of paused groups": (
        "SELECT occupant.job_id FROM occupant JOIN job_group ON job_group.id = occupant.group_id "
        "JOIN paused_group ON paused_group.name = job_group.name"
    ),
    "paused groups": "SELECT id FROM job_group JOIN paused_group ON paused_group.name = job_group.name",
    "lines": "SELECT job_id, group_id, CAST(groups AS text) FROM blocked WHERE group_id IS NOT NULL",
    "nodes in blocked": "SELECT job_id FROM blocked WHERE group_id IS NULL",
    "nodes that wait for others": "SELECT job_id FROM flow_node WHERE state IS NULL AND missing > 0",
    "open nodes that have ended": (
        "SELECT job_id FROM flow_node WHERE state IS NULL "
        "AND (job_id IN (SELECT job_id FROM finished) OR job_id NOT IN (SELECT id FROM job)) "
    ),
    "nodes that miscount": (
        "SELECT job_id, missing FROM flow_node WHERE state IS NULL AND missing <> ("
        "SELECT count(*) FROM flow_edge JOIN flow_node AS other ON other.job_id = from_job "
        "WHERE to_job = flow_node.job_id AND other.state IS NULL)"
    ),
    "flows that miscount": (
        "SELECT id FROM flow WHERE (nodes, done, dead, skipped) <> ("
        "SELECT count(*), count(*) FILTER (WHERE flow_node.state = 'done'), "
        "count(*) FILTER (WHERE flow_node.state = 'dead'), count(*) FILTER (WHERE flow_node.state = 'skipped') "
        "FROM flow_node WHERE flow_id = flow.id) OR (ended_at IS NULL) <> (nodes > done + dead + skipped)"
    ),
    "failures of no job": "SELECT job_id FROM failure WHERE job_id NOT IN (SELECT id FROM job)",
    "jobs with too many failures": (
        "SELECT job_id, count(*) FROM failure GROUP BY job_id HAVING count(*) > 32"
    ),
    "tags": "SELECT job_id, tag FROM job_tag",
    "time limits": "SELECT job_id FROM time_limit",
    "living limited jobs": "SELECT id FROM job WHERE links & 2 <> 0 AND id NOT IN (SELECT job_id FROM finished)",
    "jobs with reports": "SELECT job_id FROM saved_state UNION SELECT job_id FROM progress UNION SELECT job_id FROM step "
    "UNION SELECT job_id FROM signal",
    "pinned jobs": "SELECT job_id FROM pin",
    "jobs linked to pins": "SELECT id FROM job WHERE links & 128 <> 0 AND id NOT IN (SELECT job_id FROM finished)",
    "jobs linked to reports": "SELECT id FROM job WHERE links & 4 <> 0",
    "steps": "SELECT job_id, number, sort FROM step ORDER BY job_id, number",
    "counts of pending": "SELECT queue_id, count(*) FROM ready GROUP BY queue_id",
    "counts of scheduled": "SELECT queue_id, count(*) FROM scheduled GROUP BY queue_id",
    "waits": "SELECT job_id, step FROM waiting",
    "open waits": "SELECT job_id, name FROM step WHERE sort = 'wait' AND ended_at IS NULL",
    "counts of waiting": "SELECT queue_id, count(*) FROM waiting GROUP BY queue_id",
    "counts of blocked": "SELECT queue_id, count(*) FROM blocked GROUP BY queue_id",
    "counts of in_progress": "SELECT queue_id, count(*) FROM claimed GROUP BY queue_id",
    "counts of done": "SELECT queue_id, count(*) FROM finished WHERE state = 'done' GROUP BY queue_id",
    "counts of dead": "SELECT queue_id, count(*) FROM finished WHERE state = 'dead' GROUP BY queue_id",
    "counts of expired": "SELECT queue_id, count(*) FROM finished WHERE state = 'expired' GROUP BY queue_id",
}
"""What is looked at, all of it at one moment."""

READ_OF_POSTGRES = {
    "waits that a kept signal should have ended": (
        "SELECT waiting.job_id FROM waiting JOIN step ON step.job_id = waiting.job_id AND step.name = waiting.step "
        "JOIN signal ON signal.job_id = waiting.job_id AND signal.step IS NULL AND signal.name = ANY (step.signals)"
    ),
    "tags of jobs": "SELECT id, tag FROM job CROSS JOIN LATERAL unnest(tags) AS tag",
    "done jobs without a note": (
        "SELECT job_id FROM finished WHERE state = 'done' "
        "AND NOT EXISTS (SELECT FROM flow_node JOIN flow ON flow.id = flow_node.flow_id AND flow.state <> 'done' "
        "WHERE flow_node.job_id = finished.job_id AND flow_node.state = 'skipped') "
        "AND NOT EXISTS (SELECT FROM done_together AS noted "
        "WHERE noted.queue_id = finished.queue_id AND noted.at = finished.finished_at "
        "AND job_id BETWEEN first_id AND last_id AND (job_ids IS NULL OR job_id = ANY (job_ids)))"
    ),
}

READ_OF_SQLITE = {
    "tags of jobs": "SELECT job.id, tag.value FROM job JOIN json_each(job.tags) AS tag",
    "waits that a kept signal should have ended": (
        "SELECT waiting.job_id FROM waiting JOIN step ON step.job_id = waiting.job_id AND step.name = waiting.step "
        "JOIN signal ON signal.job_id = waiting.job_id AND signal.step IS NULL "
        "AND signal.name IN (SELECT value FROM json_each(step.signals))"
    ),
}

COUNTED = ("pending", "scheduled", "blocked", "waiting", "in_progress", "done", "dead", "expired")

Rows = Mapping[str, list[tuple[Any, ...]]]


async def check_invariants(storage: Storage, database: Database) -> None:
    """Assert all of them."""
    rows = await database.answers(
        READ | (READ_OF_POSTGRES if database.kind == "postgres" else READ_OF_SQLITE)
    )
    _each_job_is_in_exactly_one_place(rows)
    _living_keys_belong_to_living_jobs(rows)
    _holds_are_of_the_kinds_of_their_jobs(rows)
    _no_queue_has_more_held_slots_than_its_concurrency(rows)
    _failures_belong_to_jobs(rows)
    _time_limits_are_those_of_living_jobs(rows)
    _reports_are_those_of_jobs_that_say_so(rows)
    _pins_are_those_of_living_jobs_that_say_so(rows)
    _steps_have_numbers_of_their_own(rows)
    _waiting_jobs_wait_for_what_has_not_come(rows)
    _jobs_are_found_by_their_tags(rows)
    _done_jobs_are_noted_with_their_moments(rows)
    _places_in_groups_are_those_of_pending_and_running_jobs(rows)
    _no_job_is_blocked_whose_groups_have_a_place(rows)
    _jobs_of_tenants_are_linked_to_them(rows)
    _nodes_of_flows_wait_for_what_has_not_ended(rows)
    await _counts_are_true(storage, rows)
    assert await database.left_open(storage) == []


def _pins_are_those_of_living_jobs_that_say_so(rows: Rows) -> None:
    pinned, linked = _firsts(rows["pinned jobs"]), _firsts(rows["jobs linked to pins"])
    assert pinned <= linked, f"pins of jobs that have ended or do not say so: {sorted(pinned - linked)}"


def _firsts(rows: list[tuple[Any, ...]]) -> set[Any]:
    return {row[0] for row in rows}


def _each_job_is_in_exactly_one_place(rows: Rows) -> None:
    jobs = _firsts(rows["jobs"])
    places = Counter(row[0] for table in STATES for row in rows[table])
    assert set(places) <= jobs, f"in a state without being a job: {sorted(set(places) - jobs)}"
    assert jobs <= set(places), f"jobs that are nowhere: {sorted(jobs - set(places))}"
    assert max(places.values(), default=1) == 1, (
        f"in two places: {[one for one, n in places.items() if n > 1]}"
    )


def _living_keys_belong_to_living_jobs(rows: Rows) -> None:
    """A running job may have lost its key to another one; a waiting one has it."""
    keys = set(rows["keys"])
    assert keys <= set(rows["living keyed jobs"])
    assert set(rows["waiting keyed jobs"]) <= keys


def _holds_are_of_the_kinds_of_their_jobs(rows: Rows) -> None:
    """A hold may outlive its job."""
    assert rows["holds of other kinds"] == []
    assert rows["holds that end before they begin"] == []


def _no_queue_has_more_held_slots_than_its_concurrency(rows: Rows) -> None:
    assert rows["queues with too many slots"] == []
    assert rows["slots of strangers"] == []


def _places_in_groups_are_those_of_pending_and_running_jobs(rows: Rows) -> None:
    names = {row[0]: row[1] for row in rows["groups"]}
    taken = {(job, names[group]) for job, group in rows["occupants"]}
    active = _firsts(rows["ready"] + rows["claimed"])
    linked = rows["linked jobs"]
    assert all((links & GROUPS == GROUPS) == (groups is not None) for _, links, groups in linked)
    assert taken == {(job, name) for job, _, groups in linked if job in active for name in decoded(groups)}
    ids = _firsts(linked)
    assert _firsts(rows["linked scheduled jobs"]) == ids & _firsts(rows["scheduled"])
    assert _firsts(rows["lines"]) <= ids
    assert _firsts(rows["occupants of paused groups"]) <= _firsts(rows["claimed"])


def _nodes_of_flows_wait_for_what_has_not_ended(rows: Rows) -> None:
    assert _firsts(rows["nodes in blocked"]) == _firsts(rows["nodes that wait for others"])
    for wrong in ("open nodes that have ended", "nodes that miscount", "flows that miscount"):
        assert rows[wrong] == [], wrong


def _no_job_is_blocked_whose_groups_have_a_place(rows: Rows) -> None:
    limits = {row[0]: row[2] for row in rows["groups"]}
    taken = Counter(group for _, group in rows["occupants"])
    full = {group for group, limit in limits.items() if taken[group] >= limit}
    full |= _firsts(rows["paused groups"])
    for job, line, groups in rows["lines"]:
        of_job = {line} if groups is None else {int(number) for number in re.findall(r"\d+", groups)}
        assert line in of_job <= set(limits), f"job {job} stands in a line that is not of its groups"
        assert of_job & full, f"job {job} is blocked, and no group of it is full"


def _jobs_of_tenants_are_linked_to_them(rows: Rows) -> None:
    assert all(has_tenant(links) == (tenant is not None) for _, links, tenant in rows["jobs of tenants"])


def _jobs_are_found_by_their_tags(rows: Rows) -> None:
    assert sorted(rows["tags"]) == sorted(rows["tags of jobs"])


def _failures_belong_to_jobs(rows: Rows) -> None:
    assert rows["failures of no job"] == []
    assert rows["jobs with too many failures"] == []


def _time_limits_are_those_of_living_jobs(rows: Rows) -> None:
    assert _firsts(rows["time limits"]) <= _firsts(rows["living limited jobs"])


def _reports_are_those_of_jobs_that_say_so(rows: Rows) -> None:
    assert _firsts(rows["jobs with reports"]) == _firsts(rows["jobs linked to reports"])


def _steps_have_numbers_of_their_own(rows: Rows) -> None:
    numbered = [(job, number) for job, number, sort in rows["steps"] if sort != "patch"]
    assert len(numbered) == len(set(numbered))
    assert all(number > 0 for _, number, _ in rows["steps"])


def _waiting_jobs_wait_for_what_has_not_come(rows: Rows) -> None:
    assert set(rows["waits"]) <= set(rows["open waits"])
    assert rows["waits that a kept signal should have ended"] == []


def _done_jobs_are_noted_with_their_moments(rows: Rows) -> None:
    assert rows.get("done jobs without a note", []) == []


async def _counts_are_true(storage: Storage, rows: Rows) -> None:
    said = {counts.queue: _numbers(counts) for counts in await storage.jobs.counts()}
    names = {
        queue.id: queue.name for queue in await storage.queues.all()
    }  # of what is deleted nothing is said
    real: dict[str, dict[str, Any]] = {name: _numbers(Counts(name)) for name in names.values()}
    for field in COUNTED:
        for queue_id, count in rows[f"counts of {field}"]:
            if queue_id in names:
                real[names[queue_id]][field] = count
    assert said == real


def _numbers(counts: Counts) -> dict[str, Any]:
    return {field: getattr(counts, field) for field in COUNTED}

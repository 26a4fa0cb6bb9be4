"""The places in groups, and the lines before them, as an audit of SQLite sees and mends them."""

from forge_jobs.model.finding import Finding
from forge_jobs.storage.contradictions import group_finding
from forge_jobs.storage.sqlite import groups
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Transaction
from forge_jobs.storage.sqlite.waiting import make_scheduled

LOOK = """
WITH active AS MATERIALIZED (SELECT job_id FROM ready UNION SELECT job_id FROM claimed), place AS MATERIALIZED (
    SELECT occupant.job_id, coalesce(job_group.name, 'number ' || group_id) AS name
    FROM occupant LEFT JOIN job_group ON job_group.id = group_id
)
SELECT 'stale' AS what, name, job_id FROM place WHERE job_id NOT IN (SELECT job_id FROM active)
UNION ALL
SELECT 'missing', rule.key, active.job_id
FROM active JOIN job ON job.id = active.job_id AND job.groups IS NOT NULL JOIN json_each(job.groups) AS rule
WHERE NOT EXISTS (SELECT 1 FROM place WHERE place.job_id = active.job_id AND place.name = rule.key)
UNION ALL
SELECT 'lineless', 'number ' || group_id, job_id FROM blocked WHERE group_id NOT IN (SELECT id FROM job_group)
UNION ALL
SELECT DISTINCT 'standing', job_group.name, NULL
FROM blocked JOIN job_group ON job_group.id = blocked.group_id
WHERE NOT EXISTS (
    SELECT 1 FROM job_group AS one
    WHERE (one.id = blocked.group_id OR one.id IN (SELECT value FROM json_each(coalesce(blocked.groups, '[]'))))
      AND (coalesce(one.set_limit, one.said) <= (SELECT count(*) FROM occupant WHERE occupant.group_id = one.id)
           OR one.name IN (SELECT name FROM paused_group)))
ORDER BY 2, 1, 3
"""


def look(transaction: Transaction) -> dict[object, Finding]:
    """Return what is wrong about groups."""
    return {tuple(row): group_finding(*row) for row in transaction.records(LOOK)}


def mend(transaction: Transaction) -> tuple[dict[object, Finding], dict[object, Finding]]:
    """Return the findings before the repair, and those after it."""
    before = look(transaction)
    for what, name, job_id in transaction.rows(LOOK):
        if what == "stale":
            transaction.execute("DELETE FROM occupant WHERE job_id = ?", (job_id,))
        elif what == "missing":
            groups.take_place(transaction, job_id, name)
        elif what == "lineless":
            _schedule(transaction, job_id)
    groups.admit_all(transaction)
    return before, look(transaction)


def _schedule(transaction: Transaction, job_id: int) -> None:
    row = transaction.record(
        "DELETE FROM blocked WHERE job_id = ? RETURNING queue_id, attempt, priority", (job_id,)
    )
    links = transaction.value("SELECT links FROM job WHERE id = ?", (job_id,))
    if row is not None:
        due = (job_id, transaction.now, row["queue_id"], row["attempt"], row["priority"], "delayed", links)
        make_scheduled(transaction, [due])
        count_move(transaction, [row["queue_id"]], "blocked", "scheduled")

"""What keys of rate limits have promised to jobs, in SQLite: it comes sooner, also since a key is made full."""

from collections.abc import Mapping, Sequence
from functools import partial

from forge_jobs.model.intervention import Deed
from forge_jobs.model.rate_limit import LATELY
from forge_jobs.storage.sqlite import buckets, interventions
from forge_jobs.storage.sqlite.buckets import DAY, NEARLY, SECOND, Bucket
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.limits import FLOWED
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.transaction import Transaction

TOGETHER = 1000  # permits that are moved in one transaction

RESET_LATELY = """
SELECT scope, key FROM rate_limit JOIN rate_key USING (scope)
WHERE rate_limit.reset_at > ?1 AND rate_key.reset_at > ?1 ORDER BY scope, key
"""

WAITING = f"""
SELECT scope, count(DISTINCT job_id) FROM permit JOIN rate_limit USING (scope)
WHERE full_at - capacity - ({FLOWED}) >= refill * {NEARLY}.0 / {SECOND}
  AND EXISTS (SELECT 1 FROM scheduled WHERE scheduled.job_id = permit.job_id)  -- it may have been cancelled
GROUP BY scope ORDER BY scope
"""


async def reset_lately(database: SqliteDatabase) -> Sequence[tuple[str, str]]:
    """See `Permits.reset_lately`."""
    return await database.read(
        lambda transaction: transaction.rows(RESET_LATELY, (transaction.now - micros(LATELY),))
    )


async def waiting(database: SqliteDatabase) -> Mapping[str, int]:
    """See `Permits.waiting`."""
    return await database.read(lambda transaction: dict(transaction.rows(WAITING, {"now": transaction.now})))


async def move(database: SqliteDatabase, scope: str, key: str | None) -> None:
    """See `Permits.moved`."""

    def page_of(transaction: Transaction, after: int) -> int | None:
        page = transaction.value(
            "SELECT max(job_id) FROM (SELECT job_id FROM permit WHERE scope = ? AND job_id > ? AND coalesce(key = ?, true) "
            "ORDER BY job_id LIMIT ?)",
            (scope, after, key, TOGETHER),
        )
        if page is None:
            return None
        flows = {
            name: buckets.bucket(transaction, name)
            for (name,) in transaction.rows("SELECT scope FROM rate_limit")
        }
        turns: dict[int, tuple[int, int]] = {}  # by job: when its last permit is for, and when that was
        for job_id, name, its, take, full_at, until in transaction.rows(
            "SELECT job_id, scope, key, take, full_at, until FROM permit "
            "WHERE job_id IN (SELECT job_id FROM permit "
            "WHERE scope = ? AND job_id > ? AND job_id <= ? AND coalesce(key = ?, true))",
            (scope, after, page, key),
        ):
            if not flows[name].refill:
                continue
            at = transaction.now + flows[name].wait(full_at)
            latest, said = turns.get(job_id, (0, 0))
            turns[job_id] = max(latest, at), max(said, until - DAY)
            if name == scope and until < at + DAY:
                transaction.execute(
                    "UPDATE permit SET until = ? WHERE job_id = ? AND scope = ? AND key = ? AND take = ?",
                    (at + DAY, job_id, scope, its, take),
                )
        sooner = 0
        for job_id, (
            at,
            said,
        ) in turns.items():  # a job waits for a permit if it is scheduled for its moment
            sooner += transaction.changed(
                "UPDATE scheduled SET run_at = ?1 WHERE job_id = ?2 AND reason = 'throttled' "
                "AND run_at > ?1 AND run_at <= ?3",
                (at, job_id, said + SECOND // 1000),
            )
        if sooner:
            transaction.tell("due")
        return int(page)

    last: int | None = 0
    while last is not None:
        last = await database.write(partial(page_of, after=last))


async def reset(database: SqliteDatabase, scope: str, key: str, by: str | None) -> bool:
    """See `Permits.reset`."""

    def reset(transaction: Transaction) -> bool:
        flow = buckets.bucket(transaction, scope, key)
        spent = (
            buckets.full_at_of(transaction, flow, scope, key)
            - buckets.free(transaction, flow, scope, key)
            - flow.flowed
        )
        if spent <= flow.nearly:
            return False
        _reset(transaction, flow, scope, key)
        interventions.note_of(transaction, [f"limit {scope}"], Deed.RESET, by, f"key {key!r}")
        return True

    return await database.write(reset)


def _reset(transaction: Transaction, flow: Bucket, scope: str, key: str) -> None:
    """See `Permits.reset`, of a key of which something is spent."""
    # What was voided is gone, so that nothing is taken for it.
    transaction.execute("DELETE FROM permit WHERE scope = ? AND full_at <= ?", (scope, flow.void_to))
    transaction.execute(
        "DELETE FROM permit WHERE scope = ? AND key = ? AND (job_id IN (SELECT job_id FROM finished) "
        "OR job_id NOT IN (SELECT id FROM job))",
        (scope, key),
    )
    # Jobs that wait for tokens get them out of the full bucket, one after another as before. Those for whom they were there
    # already have them, and none of these come back when they are settled.
    stands_at = flow.flowed
    promised = "SELECT job_id, take, cost, full_at FROM permit WHERE scope = ? AND key = ? ORDER BY full_at, job_id, take"
    for job_id, take, cost, full_at in transaction.rows(promised, (scope, key)):
        stands_at += cost if flow.wait(full_at) else 0.0
        transaction.execute(
            "UPDATE permit SET full_at = ? WHERE job_id = ? AND scope = ? AND key = ? AND take = ?",
            (min(full_at, stands_at), job_id, scope, key, take),
        )
    moment = "max(?, coalesce(reset_at, 0), coalesce(emptied_at + 1, 0))"
    transaction.execute(
        f"UPDATE rate_limit SET reset_at = {moment}, void_to = -1 WHERE scope = ?", (transaction.now, scope)
    )
    buckets.write(transaction, scope, key, stands_at)
    transaction.execute(
        "UPDATE rate_key SET free_to = 0, reset_at = (SELECT reset_at FROM rate_limit WHERE scope = ?1) WHERE scope = ?1 AND key = ?2",
        (scope, key),
    )

"""The statements of forge-jobs on SQLite without forge-jobs: what the sqlite3 module allows at most.

One connection with the library's pragmas; each batch is one transaction to claim it and one to finish it.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.sides.told import Usage
from benchmarks.workload import BARE_BATCH
from forge_jobs.model.job import Claim
from forge_jobs.storage.interface.claims import START
from forge_jobs.storage.sqlite.claims import ALLOWED, PLAIN
from forge_jobs.storage.sqlite.outcomes import FINISH
from forge_jobs.storage.stretches import AFTER_ALL_PRIORITIES

WORKER_ID = 1
FIRST_ATTEMPT = 1
PICK, OWN, TAKE = PLAIN
COLUMNS = list(Claim.__annotations__)  # PICK's are in this order
JOB, PRIORITY, POS = (COLUMNS.index(name) for name in ("job_id", "priority", "pos"))
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "temp_store = MEMORY",
    "cache_size = -16000",
)
REGISTER = """
INSERT INTO worker (id, label, host, pid, version, queues, kinds, concurrency, started_at, beat_at)
VALUES (?, 'bare', '', 0, '', '["bench"]', '[]', 1, 0, 0)
"""
HELD = "SELECT job_id, worker_id, attempt FROM claimed WHERE job_id IN (SELECT value FROM json_each(?))"
GIVE_UP = "DELETE FROM claimed WHERE job_id IN (SELECT value FROM json_each(?))"
TALLY_CLAIMED = "UPDATE tally SET pending = pending - ?1, in_progress = in_progress + ?1 WHERE queue_id = ?2"
TALLY_DONE = "UPDATE tally SET in_progress = in_progress - ?1, done = done + ?1 WHERE queue_id = ?2"


def _nothing(rows: Sequence[Any]) -> None:
    pass


def work_through(path: str, jobs: int, begun: Callable[[Sequence[Any]], None] = _nothing) -> dict[str, Any]:
    """Claim and finish all jobs; `begun` is given the rows of each claim."""
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute(REGISTER, (WORKER_ID,))
    queue_id = connection.execute("SELECT id FROM queue WHERE name = 'bench'").fetchone()[0]
    done, first, last = 0, 0.0, 0.0
    before = Usage.now()
    while rows := claim(connection, queue_id):
        first = first or time.monotonic()
        begun(rows)
        done += finish(connection, queue_id, rows)
        last = time.monotonic()
    used = before.until(Usage.now())
    connection.close()
    return {"seconds": last - first, "jobs": done, "started": jobs, "cpu": used["cpu"]}


def claim(connection: sqlite3.Connection, queue_id: int) -> list[Any]:
    """Claim one batch, and return its rows."""
    wanted: dict[str, Any] = {
        "queue_id": queue_id,
        "worker_id": WORKER_ID,
        "limit": BARE_BATCH,
        "in_hand": 0,
        "priority": START[0],
        "pos": START[1],
        "until": AFTER_ALL_PRIORITIES,
        "era": None,
        "beat_at": None,
        "now": time.time_ns() // 1000,
    }
    connection.execute("BEGIN IMMEDIATE")
    wanted["limit"] = connection.execute(ALLOWED, wanted).fetchone()[0]
    rows = connection.execute(PICK, wanted).fetchall()
    if rows:
        first, last = rows[0], rows[-1]
        wanted.update(first_priority=first[PRIORITY], first_pos=first[POS], first_job=first[0])
        wanted.update(last_priority=last[PRIORITY], last_pos=last[POS], last_job=last[0])
        connection.execute(OWN, wanted)
        connection.execute(TAKE, wanted)
        connection.execute(TALLY_CLAIMED, (len(rows), queue_id))
    connection.execute("COMMIT")
    return rows


def finish(connection: sqlite3.Connection, queue_id: int, rows: list[Any]) -> int:
    """Finish one batch; return how many jobs of it were ours."""
    now = time.time_ns() // 1000
    ids = json.dumps([row[JOB] for row in rows])
    connection.execute("BEGIN IMMEDIATE")
    held = set(connection.execute(HELD, (ids,)).fetchall())
    connection.execute(GIVE_UP, (ids,))
    finished = [
        (row[JOB], WORKER_ID, now, now, queue_id, FIRST_ATTEMPT, "done", None, None)
        for row in rows
        if (row[JOB], WORKER_ID, FIRST_ATTEMPT) in held
    ]
    connection.executemany(FINISH, finished)
    connection.execute(TALLY_DONE, (len(finished), queue_id))
    connection.execute("COMMIT")
    return len(finished)

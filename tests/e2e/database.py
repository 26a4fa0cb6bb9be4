"""The database as somebody with psql sees it, and the ledger in it."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.e2e.cluster import Cluster
from tests.e2e.waiting import eventually

POD = "forge-jobs-postgres-0"

UNTIL_TOLD = None
"""What a job takes that ends when `let_end` names it, and not before."""

TABLES = """
CREATE TABLE IF NOT EXISTS may_end (job_id bigint PRIMARY KEY);
CREATE TABLE IF NOT EXISTS ledger (
    id      uuid PRIMARY KEY,
    what    text NOT NULL,
    job_id  bigint NOT NULL,
    attempt integer NOT NULL,
    pod     text NOT NULL,
    version text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger."""

    what: str  # started, ended, failed or stopped
    job_id: int
    attempt: int
    pod: str
    version: str
    at: datetime


class Database:
    """The release's PostgreSQL."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def execute(self, sql: str) -> str:
        """Return what psql printed for some statements."""
        psql = ["psql", "-U", "forge", "-d", "forge", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", sql]
        return self._cluster.kubectl("exec", POD, "-c", "postgres", "--", *psql, timeout=30)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        text = self.execute(f"SELECT coalesce(json_agg(found), '[]') FROM ({query}) AS found")
        found: list[dict[str, Any]] = json.loads(text)
        return found

    def value(self, query: str) -> Any:
        """Return the first column of the only row."""
        (row,) = self.rows(query)
        return next(iter(row.values()))

    def enqueue(
        self,
        queue: str,
        seconds: float | None = 0,
        count: int = 1,
        *,
        spread: float = 0,
        kind: str = "work",
    ) -> list[int]:
        """Return the ids of jobs that take so many seconds each; with `spread`, one is due every so many seconds."""
        run_at = f"clock_timestamp() + number * interval '{spread} seconds'" if spread else "NULL"
        arguments = json.dumps({"seconds": seconds})
        rows = self.rows(
            f"SELECT forge_jobs.enqueue('{kind}', '{arguments}', queue => '{queue}', run_at => {run_at})"
            f" AS id FROM generate_series(1, {count}) AS number"
        )
        return [row["id"] for row in rows]

    def let_end(self, jobs: list[int]) -> None:
        """Jobs that take until they are told may end."""
        self.execute(
            f"INSERT INTO may_end SELECT unnest('{{{_listed(jobs)}}}'::bigint[]) ON CONFLICT DO NOTHING"
        )

    def hurry(self, jobs: list[int]) -> None:
        """Those of the jobs whose time has not come are due now and take no time, as the situation needs no more load."""
        self.execute(
            "WITH waiting AS (UPDATE forge_jobs.scheduled SET run_at = clock_timestamp()"
            f" WHERE job_id = ANY('{{{_listed(jobs)}}}') AND reason = 'delayed' RETURNING job_id)"
            " UPDATE forge_jobs.job SET payload = convert_to('{\"seconds\": 0}', 'UTF8')"
            " FROM waiting WHERE job.id = waiting.job_id"
        )

    def states(self, jobs: list[int]) -> dict[str, int]:
        """Return how many of the jobs are in each state."""
        return dict(Counter(row["state"] for row in self.jobs(jobs)))

    def jobs(self, jobs: list[int]) -> list[dict[str, Any]]:
        """Return what the database says of the jobs."""
        columns = "id, state, attempt, created_at, run_at, started_at, finished_at, error"
        return self.rows(
            f"SELECT {columns} FROM forge_jobs.jobs WHERE id = ANY('{{{_listed(jobs)}}}') ORDER BY id"
        )

    def are_done(self, jobs: list[int], *, within: float) -> None:
        """All of the jobs are done."""
        wanted = {"done": len(jobs)}
        eventually(lambda: _is(self.states(jobs), wanted), within=within, what=f"{len(jobs)} jobs are done")

    def are_running(self, jobs: list[int], *, within: float) -> None:
        """The ledger says of all of the jobs that they have started and not ended."""

        def check() -> bool:
            told = self.ledger(jobs)
            open_ = {line.job_id for line in told if line.what == "started"}
            open_ -= {line.job_id for line in told if line.what != "started"}
            assert open_ == set(jobs), f"{len(open_)} of {len(jobs)} run"
            return True

        eventually(check, within=within, what=f"{len(jobs)} jobs run")

    def ledger(self, jobs: list[int]) -> list[Line]:
        """Return what handlers said of the jobs, in the order in which they said it."""
        rows = self.rows(
            "SELECT what, job_id, attempt, pod, version, at FROM ledger"
            f" WHERE job_id = ANY('{{{_listed(jobs)}}}') ORDER BY at"
        )
        return [Line(**{**row, "at": datetime.fromisoformat(row["at"])}) for row in rows]

    def ran_once(self, jobs: list[int]) -> list[Line]:
        """Return the ledger of jobs of which each was started once and ended once, by the same pod, and nothing else."""
        told = self.ledger(jobs)
        for what in ("started", "ended"):
            counted = Counter(line.job_id for line in told if line.what == what)
            lost = set(jobs) - set(counted)
            doubled = [job for job, times in counted.items() if times > 1]
            assert not lost, f"{len(lost)} of {len(jobs)} jobs were never {what}: {sorted(lost)[:10]}"
            assert not doubled, (
                f"{len(doubled)} of {len(jobs)} jobs were {what} twice: {doubled[:10]}; of the first the ledger says "
                f"{[line for line in told if line.job_id == doubled[0]]}"
            )
        others = [line for line in told if line.what not in ("started", "ended")]
        assert not others, f"jobs were interrupted: {others[:5]}"
        started = {line.job_id: line.pod for line in told if line.what == "started"}
        assert all(started[line.job_id] == line.pod for line in told)
        return told


def _listed(jobs: list[int]) -> str:
    return ",".join(map(str, jobs))


def _is(found: dict[str, int], wanted: dict[str, int]) -> bool:
    assert found == wanted, f"they are {found}"
    return True

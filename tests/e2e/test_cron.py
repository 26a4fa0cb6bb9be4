"""A cron fires once for each time, also across the death of the worker that leads."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise

from tests.e2e.cluster import Cluster, manifest
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

EVERY = timedelta(seconds=2)
# A lease that a worker keeps up itself is longer than the one that it is given by GIVE_LEAD.
LEADER = """
SELECT worker.pod FROM forge_jobs.leader JOIN forge_jobs.worker ON worker.id = leader.worker_id
WHERE leader.until > now() + interval '8 seconds'
"""
GIVE_LEAD = """
UPDATE forge_jobs.leader SET worker_id = worker.id, epoch = epoch + 1, until = now() + interval '8 seconds'
FROM forge_jobs.worker
WHERE worker.pod = '{pod}' AND (leader.worker_id IS DISTINCT FROM worker.id OR leader.until <= now())
"""
FIRES = """
SELECT fire_at FROM forge_jobs.fire JOIN forge_jobs.cron ON cron.id = fire.cron_id
WHERE cron.name = '{cron}' ORDER BY fire_at
"""


def test_a_cron_fires_once_for_each_time_though_its_leader_dies(
    space: Cluster, database: Database, measure: Callable[[str, str], None]
) -> None:
    queue = space.queue("timed", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    name = f"{space.namespace}/ticking"
    cron = manifest("cron.yaml")
    cron["metadata"] = {"name": "ticking"}
    cron["spec"]["job"]["queue"] = "timed"
    space.apply(cron)
    space.kubectl("wait", "forgecron/ticking", "--for=condition=Ready", "--timeout=60s", timeout=70)
    eventually(lambda: len(fires(database, name)) >= 5, within=60, what="the cron has fired five times")

    leader = queue.ready_pods()[0]["metadata"]["name"]
    eventually(lambda: leads(database, leader), within=120, what="one of its workers leads")
    killed = now(database)
    space.kill(leader)
    eventually(lambda: leading(database) - {leader}, within=60, what="another worker leads")
    eventually(
        lambda: fires(database, name)[-1] > killed + timedelta(seconds=24),
        within=90,
        what="the cron goes on",
    )
    space.patch("forgecron", "ticking", {"spec": {"suspend": True}})
    enabled = f"SELECT enabled FROM forge_jobs.cron WHERE name = '{name}'"
    eventually(lambda: not database.value(enabled), within=30, what="it is suspended")

    times = fires(database, name)
    gaps = Counter(later - earlier for earlier, later in pairwise(times))
    assert set(gaps) == {EVERY}, f"times were left out: {gaps}"
    jobs = [row["id"] for row in database.rows("SELECT id FROM forge_jobs.jobs WHERE queue = 'timed'")]
    assert len(jobs) == len(times), f"{len(jobs)} jobs for {len(times)} times"
    database.are_done(jobs, within=90)
    ran = {line.job_id for line in database.ledger(jobs) if line.what == "ended"}
    assert ran == set(jobs)
    measure("cron across its leader's death: times, jobs", f"{len(times)}, {len(jobs)}")


def test_a_schedule_that_never_comes_is_told(space: Cluster, database: Database) -> None:
    space.queue("never", {"workers": None}).becomes("Ready", "True", within=60)
    cron = manifest("cron.yaml")
    cron["metadata"] = {"name": "never"}
    cron["spec"]["job"]["queue"] = "never"
    cron["spec"] |= {"schedule": "0 0 30 2 *"}
    space.apply(cron)

    def condition() -> dict[str, str]:
        found: list[dict[str, str]] = space.get("forgecron", "never")["status"]["conditions"]
        return next(each for each in found if each["type"] == "Ready" and each["status"] == "False")

    found = eventually(condition, within=60, what="a condition says that it never comes")
    assert found["reason"] == "InvalidSchedule", found


def fires(database: Database, cron: str) -> list[datetime]:
    """Return the times for which the cron has enqueued a job."""
    return [datetime.fromisoformat(row["fire_at"]) for row in database.rows(FIRES.format(cron=cron))]


def leading(database: Database) -> set[str]:
    """Return the pod of the worker that leads, if one does."""
    return {row["pod"] for row in database.rows(LEADER)}


def leads(database: Database, pod: str) -> bool:
    """Whether the pod's worker leads; if another one does, it is as if that had lost the lead to it."""
    if leading(database) == {pod}:
        return True
    database.execute(GIVE_LEAD.format(pod=pod))
    return False


def now(database: Database) -> datetime:
    """Return the database's time."""
    return datetime.fromisoformat(database.value("SELECT now()"))

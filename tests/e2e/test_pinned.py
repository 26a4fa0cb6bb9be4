"""A job that is pinned to a version outlives its rollout: the version sleeps, wakes for the job, and goes after it."""

from tests.e2e.cluster import Cluster
from tests.e2e.database import Database
from tests.e2e.waiting import always, eventually


def test_a_version_sleeps_and_wakes_for_a_job_that_is_pinned_to_it(
    space: Cluster, database: Database
) -> None:
    queue = space.queue("pinned")
    queue.serves("1")
    job = database.enqueue("pinned", kind="onboard")
    eventually(lambda: database.states(job) == {"waiting": 1}, within=30, what="the job waits for its signal")

    queue.change({"workers": {"version": "2"}})
    queue.serves("2")
    eventually(lambda: not queue.pods("1"), within=120, what="version 1 sleeps")
    assert (queue.version("1")["state"], queue.version("1")["pinned"]) == ("Draining", 1)
    new = database.enqueue("pinned", kind="onboard")
    eventually(lambda: database.ledger(new), within=30, what="a new job has begun")
    always(lambda: queue.version("1")["state"] == "Draining", during=30, what="version 1 is kept")

    database.execute(f"SELECT forge_jobs.signal('approved', job => {job[0]})")
    database.are_done(job, within=120)
    assert [(line.what, line.version) for line in database.ledger(job)] == [("began", "1"), ("ended", "1")]

    eventually(
        lambda: queue.version("1")["state"] in ("Drained", "Retired"), within=120, what="version 1 is drained"
    )
    database.execute(f"SELECT forge_jobs.signal('approved', job => {new[0]})")
    database.are_done(new, within=60)
    assert {line.version for line in database.ledger(new)} == {"2"}

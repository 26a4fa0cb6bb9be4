"""The operators are killed in the middle of a rollout, again and again: it comes to its end, and no job suffers."""

from tests.e2e.cluster import Cluster, Operator
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually


def test_a_rollout_comes_to_its_end_though_the_operators_are_killed(
    space: Cluster, database: Database, operator: Operator
) -> None:
    queue = space.queue("survivor", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    running = database.enqueue("survivor", UNTIL_TOLD, 6)
    database.are_running(running, within=30)
    steady = database.enqueue("survivor", 0.1, 180, spread=1)

    queue.change({"workers": {"version": "2"}})
    eventually(lambda: "2" in queue.deployments(), within=60, what="version 2 is on its way", every=0.2)
    operator.kill()
    eventually(operator.leader, within=90, what="another operator leads")
    eventually(lambda: serving(database, "survivor") == "2", within=120, what="version 2 serves", every=0.2)
    operator.kill()  # while version 1 drains
    eventually(lambda: len(queue.ready_pods("2")) == 2, within=120, what="version 2 has its pods")
    database.hurry(steady)
    database.let_end(running)

    database.are_done(running + steady, within=90)
    told = database.ran_once(running + steady)
    assert {line.version for line in told if line.job_id in running} == {"1"}
    operator.is_ready()
    queue.serves("2", pods=2)
    eventually(lambda: not queue.pods("1"), within=120, what="the pods of version 1 are gone")
    versions = [each["version"] for each in queue.status()["versions"]]
    assert sorted(versions) == ["1", "2"], "a version was made twice"


def serving(database: Database, deployment: str) -> str | None:
    """Return the version whose gate is open."""
    rows = database.rows(
        "SELECT version FROM forge_jobs.worker_version"
        f" WHERE deployment LIKE '{deployment}-%' AND state = 'current'"
    )
    return rows[0]["version"] if rows else None

"""The leading operator is frozen and thawed: another one leads meanwhile, and the old one can do nothing any more."""

from collections.abc import Callable

from tests.e2e.cluster import Cluster, Operator, send
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import always, eventually


def test_a_leader_that_was_frozen_does_no_harm_when_it_thaws(
    space: Cluster, database: Database, operator: Operator, measure: Callable[[str, str], None]
) -> None:
    queue = space.queue("frosty")
    queue.serves("1")
    running = database.enqueue("frosty", UNTIL_TOLD, 5)
    database.are_running(running, within=30)
    frozen = operator.leader()
    before = epoch(database)

    queue.change({"workers": {"version": "2"}})  # it has begun with this one when it freezes
    eventually(lambda: "2" in queue.deployments(), within=60, what="version 2 is on its way", every=0.2)
    send(space, frozen, "SIGSTOP")
    queue.change({"workers": {"version": "3"}})  # it knows nothing of this one
    eventually(lambda: operator.leader() != frozen, within=90, what="another operator leads")
    queue.serves("3")
    during = epoch(database)
    assert during[0] > before[0]
    assert during[1] != before[1]

    send(space, frozen, "SIGCONT")
    always(
        lambda: epoch(database)[0] >= during[0] and current(database) == ["3"],
        during=10,
        what="version 3 alone serves",
    )
    eventually(lambda: len(operator.pods()) == 2, within=60, what="there are two operators again")
    operator.is_ready()
    assert queue.status()["currentVersion"]["version"] == "3"
    jobs = database.enqueue("frosty", 0, 5)
    database.let_end(running)
    database.are_done(running + jobs, within=60)
    told = database.ran_once(running + jobs)
    assert {line.version for line in told if line.job_id in running} == {"1"}
    assert {line.version for line in told if line.job_id in jobs} == {"3"}
    after = epoch(database)
    measure("a frozen leader: epochs before, while frozen, after", f"{before[0]}, {during[0]}, {after[0]}")


def epoch(database: Database) -> tuple[int, str]:
    """Return the epoch that writes have to name, and who named it."""
    (row,) = database.rows("SELECT epoch, holder FROM forge_jobs.operator")
    return row["epoch"], row["holder"]


def current(database: Database) -> list[str]:
    """Return the versions whose gates are open."""
    rows = database.rows(
        "SELECT version FROM forge_jobs.worker_version"
        " WHERE deployment LIKE 'frosty-%' AND state IN ('current', 'ramping')"
    )
    return [row["version"] for row in rows]

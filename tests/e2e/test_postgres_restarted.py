"""PostgreSQL goes and comes back: nothing is scaled down, nobody is restarted, every job is done."""

from collections import Counter
from collections.abc import Callable

from tests.e2e.cluster import Cluster, Operator
from tests.e2e.database import POD, Database
from tests.e2e.waiting import eventually


def test_a_restart_of_postgres_costs_no_job_and_no_pod(
    space: Cluster,
    installed: Cluster,
    database: Database,
    operator: Operator,
    measure: Callable[[str, str], None],
) -> None:
    queue = space.queue("patient", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    lives = queue.lives()
    operators = {name: pod["metadata"]["uid"] for name, pod in operator.pods().items()}
    running = database.enqueue("patient", 25, 8)
    waiting = database.enqueue("patient", 0.1, 30, spread=1)
    database.are_running(running, within=30)

    old = installed.get("pod", POD)["metadata"]["uid"]
    installed.kubectl("delete", "pod", POD, timeout=90)

    def is_back() -> bool:
        assert queue.lives() == lives, "pods of workers were taken away or restarted"
        assert installed.get("pod", POD)["metadata"]["uid"] != old
        return bool(database.value("SELECT 1") == 1)

    eventually(is_back, within=180, what="PostgreSQL is back")
    after = database.enqueue("patient", 0, 5)
    jobs = running + waiting + after
    database.are_done(jobs, within=150)
    told = database.ledger(jobs)
    ended = Counter(line.job_id for line in told if line.what == "ended")
    assert set(ended) == set(jobs), "jobs were lost"
    again = [job for job, times in ended.items() if times > 1]
    measure("PostgreSQL restarted: jobs, of which lost, of which ran again", f"{len(jobs)}, 0, {len(again)}")
    assert queue.lives() == lives
    queue.becomes("DatabaseReachable", "True", within=90)
    queue.becomes("Ready", "True", within=90)
    assert {name: pod["metadata"]["uid"] for name, pod in operator.pods().items()} == operators

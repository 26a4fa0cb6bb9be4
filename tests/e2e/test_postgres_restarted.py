"""PostgreSQL goes and comes back, at once or late: nothing is scaled down, nobody is restarted, every job is done."""

from collections import Counter
from collections.abc import Callable

from tests.e2e.cluster import Cluster, Operator, restarts
from tests.e2e.database import POD, UNTIL_TOLD, Database
from tests.e2e.waiting import always, eventually

STATEFULSET = "statefulset/forge-jobs-postgres"
AWAY = 40.0  # seconds; after 30 without a beat a worker is silent, and numbers are too old to scale by
AUTOSCALING = {
    "minReplicas": 0,
    "maxReplicas": 2,
    "targetLatencySeconds": 1,
    "idleSeconds": 5,
    "scaleDown": {"stabilizationWindowSeconds": 5, "periodSeconds": 5},
}


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
    running = database.enqueue("patient", 25, 4) + database.enqueue("patient", UNTIL_TOLD, 4)
    waiting = database.enqueue("patient", 0.1, 120, spread=1)
    database.are_running(running, within=30)

    old = installed.get("pod", POD)["metadata"]["uid"]
    installed.kubectl("delete", "pod", POD, timeout=90)

    def is_back() -> bool:
        assert queue.lives() == lives, "pods of workers were taken away or restarted"
        assert installed.get("pod", POD)["metadata"]["uid"] != old
        return bool(database.value("SELECT 1") == 1)

    eventually(is_back, within=180, what="PostgreSQL is back")
    after = database.enqueue("patient", 0, 5)
    database.hurry(waiting)
    database.let_end(running)
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


def test_an_outage_of_postgres_scales_nothing_down_and_loses_no_job(
    space: Cluster,
    installed: Cluster,
    database: Database,
    operator: Operator,
    measure: Callable[[str, str], None],
) -> None:
    queue = space.queue("blind", {"workers": {"replicas": None, "slots": 2, "autoscaling": AUTOSCALING}})
    (long,) = eventually(lambda: database.enqueue("blind", UNTIL_TOLD), within=60, what="the queue is there")
    jobs = database.enqueue("blind", 5, 24)
    eventually(lambda: len(queue.ready_pods()) == 2, within=120, what="there are two pods")
    lives, operators = queue.lives(), restarts_of(operator)
    database.are_running([long], within=30)

    installed.kubectl("scale", STATEFULSET, "--replicas=0")
    try:
        eventually(lambda: not installed.exists("pod", POD), within=90, what="PostgreSQL is away")
        always(lambda: queue.lives() == lives, during=AWAY, what="the pods are as before")
        assert queue.condition("DatabaseReachable")["status"] == "False"
        assert queue.condition("Ready")["status"] == "Unknown"
        assert queue.condition("ScalingActive")["reason"] == "StaleSignal"
    finally:
        installed.kubectl("scale", STATEFULSET, "--replicas=1")
    eventually(lambda: database.value("SELECT 1") == 1, within=120, what="PostgreSQL is back")

    database.are_done(jobs, within=180)
    ended = Counter(line.job_id for line in database.ledger(jobs) if line.what == "ended")
    assert set(ended) == set(jobs), "jobs were lost"
    assert {line.attempt for line in database.ledger(jobs)} == {1}, "the outage cost attempts"
    database.let_end([long])
    database.are_done([long], within=60)
    database.ran_once([long])
    again = [job for job, times in ended.items() if times > 1]
    measure(
        f"PostgreSQL away for {AWAY:.0f} s: jobs, of which lost, of which ended again",
        f"{len(jobs)}, 0, {len(again)}",
    )
    queue.becomes("DatabaseReachable", "True", within=90)
    assert restarts_of(operator) == operators
    eventually(lambda: not queue.pods(), within=120, what="it is scaled again")


def restarts_of(operator: Operator) -> dict[str, int]:
    """Return how often each operator was restarted."""
    return {name: restarts(pod) for name, pod in operator.pods().items()}

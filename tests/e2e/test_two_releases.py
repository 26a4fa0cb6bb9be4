"""Two releases whose operators watch the same namespaces, as the defaults do: who came first manages an object, and the other one says so."""

from collections.abc import Callable

from tests.e2e.cluster import AUTOSCALING, Cluster
from tests.e2e.database import Database
from tests.e2e.waiting import always, eventually

CHART = "charts/forge-jobs"
SECOND = (
    "postgres.enabled=true,postgres.persistence.enabled=false,operator.replicas=1,"
    "crds.install=false,rbac.aggregate=false"
)


def test_a_second_release_leaves_alone_what_the_first_manages(
    spaces: Callable[[str], Cluster], database: Database
) -> None:
    space, second = spaces("shared"), spaces("second")
    queue = space.queue("shared", {"workers": {"replicas": None, "slots": 1, "autoscaling": AUTOSCALING}})
    queue.serves("1", pods=0)
    jobs = database.enqueue("shared", 60, 3)
    eventually(lambda: len(queue.ready_pods()) == 3, within=90, what="the pool has grown")
    lives = queue.lives()
    try:
        second.helm("install", "second", CHART, "--set", SECOND, "--wait")
        eventually(
            lambda: (
                second.namespace in space.kubectl("get", "events", "--field-selector=reason=AnotherOperator")
            ),
            within=90,
            what="the second operator says that it leaves the queue alone",
        )
        always(lambda: queue.lives() == lives, during=10, what="pods are as before")
    finally:
        second.helm("uninstall", "second", "--wait")
    database.are_done(jobs, within=120)
    database.ran_once(jobs)
    assert queue.status()["operator"] == "default/forge-jobs-operator"

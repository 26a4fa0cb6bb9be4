"""helm upgrade touches no worker, and helm uninstall leaves objects and jobs."""

from tests.e2e.cluster import Cluster, Operator
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually

CHART = "charts/forge-jobs"


def test_an_upgrade_touches_no_worker_and_an_uninstall_leaves_what_people_made(
    space: Cluster, installed: Cluster, database: Database, operator: Operator
) -> None:
    queue = space.queue("constant", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    lives, names = queue.lives(), {each["metadata"]["name"] for each in queue.deployments().values()}
    running = database.enqueue("constant", UNTIL_TOLD, 6)
    database.are_running(running, within=30)
    steady = database.enqueue("constant", 0.1, 120, spread=1)
    operators = set(operator.pods())

    installed.helm(
        "upgrade", "forge-jobs", CHART, "--reuse-values", "--set", "logLevel=debug", "--wait", "--timeout=4m"
    )
    operator.is_ready()
    installed.helm("test", "forge-jobs")
    eventually(lambda: not operators & set(operator.pods()), within=90, what="the operators are new")
    database.hurry(steady)
    database.let_end(running)
    database.are_done(running + steady, within=90)
    database.ran_once(running + steady)
    queue.becomes("Ready", "True", within=60)
    assert queue.lives() == lives, "pods of workers were replaced or restarted"
    assert {each["metadata"]["name"] for each in queue.deployments().values()} == names

    kept = database.enqueue("constant", 0, 3, spread=3600)
    installed.helm("uninstall", "forge-jobs", "--wait", "--timeout=3m")
    eventually(lambda: not operator.pods(), within=90, what="the operators are gone")
    for kind in ("forgequeues", "forgecrons"):
        assert installed.exists("customresourcedefinition", f"{kind}.forge-jobs.dev")
    assert queue.object()["spec"]["workers"]["version"] == "1"
    assert queue.lives().keys() == lives.keys(), "the workers went with the release"

    installed.helm("install", "forge-jobs", CHART, "--set", "postgres.enabled=true", "--wait", "--timeout=5m")
    operator.is_ready()
    queue.becomes("Ready", "True", within=120)
    assert database.states(kept) == {"scheduled": 3}, "jobs went with the release"
    assert queue.lives().keys() == lives.keys()
    later = database.enqueue("constant", 0, 3)
    database.are_done(later, within=120)
    database.ran_once(later)

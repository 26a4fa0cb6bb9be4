"""With watchNamespaces the operator has Roles there and nothing else: what it watches is served, the rest stays as it is."""

from collections.abc import Callable

from tests.e2e.cluster import Cluster, CommandFailed, Operator, manifest
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

CHART = "charts/forge-jobs"
ACCOUNT = "system:serviceaccount:default:forge-jobs-operator"


def test_an_operator_with_roles_alone_serves_what_it_watches_and_leaves_the_rest_as_it_is(
    spaces: Callable[[str], Cluster], installed: Cluster, database: Database, operator: Operator
) -> None:
    watched, other = spaces("watched"), spaces("unwatched")
    inside, outside = watched.queue("inside"), other.queue("outside")
    inside.serves("1")
    outside.serves("1")
    assert may(other, "list", "pods")
    lives = outside.lives()

    chosen = f"watchNamespaces={{{watched.namespace}}}"
    try:
        installed.helm("upgrade", "forge-jobs", CHART, "--reuse-values", "--set", chosen, "--wait")
        status = outside.status()  # the operator before may have written it until it was replaced
        operator.is_ready()
        assert may(watched, "list", "pods")
        assert not may(other, "list", "pods")
        assert not installed.exists("clusterrolebinding", "forge-jobs-operator")

        # The leader looks at everything before it gets to what has changed.
        outside.change({"concurrency": {"limit": 3}, "workers": {"version": "2"}})
        unseen = other.queue("unseen")
        inside.change({"concurrency": {"limit": 3}, "workers": {"version": "2"}})
        inside.serves("2")
        cron = manifest("cron.yaml")
        cron["metadata"] = {"name": "inside"}
        cron["spec"] |= {"schedule": "@yearly"}
        cron["spec"]["job"]["queue"] = "inside"
        watched.apply(cron)
        watched.kubectl("wait", "forgecron/inside", "--for=condition=Ready", "--timeout=60s", timeout=70)

        assert limits(database) == {"inside": 3, "outside": None}
        assert "status" not in unseen.object()
        assert not unseen.deployments()
        assert outside.object()["status"] == status
        assert outside.lives() == lives
        jobs = database.enqueue("inside", 0, 3) + database.enqueue("outside", 0, 3)
        database.are_done(jobs, within=60)
        assert [line.version for line in database.ran_once(jobs) if line.what == "ended"].count("1") == 3
    finally:
        installed.helm("rollback", "forge-jobs", "--wait")
    operator.is_ready()
    outside.serves("2")
    unseen.serves("1")
    eventually(
        lambda: limits(database) == {"inside": 3, "outside": 3, "unseen": None},
        within=30,
        what="the rows say what the objects say",
    )


def may(space: Cluster, verb: str, kind: str) -> bool:
    """Return whether the operator has the right in the namespace."""
    try:
        return "yes" in space.kubectl("auth", "can-i", verb, kind, "--as", ACCOUNT)
    except CommandFailed as error:
        assert error.output.strip().startswith("no"), error
        return False


def limits(database: Database) -> dict[str, object]:
    """Return the limits of this test's queues, by their rows."""
    query = "SELECT name, concurrency FROM forge_jobs.queue WHERE name IN ('inside', 'outside', 'unseen')"
    return {row["name"]: row["concurrency"] for row in database.rows(query)}

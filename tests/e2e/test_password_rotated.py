"""The password of the database is changed: operator and workers take the new one from their Secrets, and no job ends for it."""

import base64
import secrets

from tests.e2e.cluster import Cluster, Operator, restarts
from tests.e2e.conftest import SECRET
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually

FILE = "/run/forge-jobs/database/url"
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'forge' AND pid <> pg_backend_pid()"


def test_a_rotated_password_is_picked_up_and_the_long_job_goes_on(
    space: Cluster, installed: Cluster, database: Database, operator: Operator
) -> None:
    queue = space.queue("guarded", {"workers": {"replicas": 1}})
    queue.serves("1", pods=1)
    lives = queue.lives()
    (worker,) = queue.pods()
    operators = restarts_of(operator)
    (long,) = database.enqueue("guarded", UNTIL_TOLD)
    database.are_running([long], within=30)

    password = secrets.token_urlsafe(16)
    database.execute(f"ALTER USER forge PASSWORD '{password}'")
    for cluster in (installed, space):
        rotate(cluster, password)
    for cluster, pod in ((space, worker["metadata"]["name"]), *((installed, name) for name in operators)):
        # By itself the kubelet takes a minute or two until a file says what its Secret says; a changed pod it
        # looks at now.
        cluster.kubectl("annotate", "pod", pod, "forge-jobs-e2e/looked-at=now")
        eventually(
            lambda cluster=cluster, pod=pod: password in said_by_file(cluster, pod),
            within=180,
            what=f"the file of {pod} says the new password",
        )
    database.execute(CUT)  # connections that are there would go on with the old one

    short = database.enqueue("guarded", 0, 5)
    database.are_done(short, within=60)
    queue.becomes("DatabaseReachable", "True", within=90)
    queue.change({"concurrency": {"limit": 7}})
    eventually(
        lambda: database.value("SELECT concurrency FROM forge_jobs.queue WHERE name = 'guarded'") == 7,
        within=60,
        what="the operator writes",
    )
    database.let_end([long])
    database.are_done([long], within=60)

    installed.helm("rollback", "forge-jobs", "1", "--wait")
    assert password in url_of(installed), "a rollback put the old password back"

    assert {line.attempt for line in database.ran_once([long, *short])} == {1}
    assert queue.lives() == lives, "pods of workers were replaced or restarted"
    assert restarts_of(operator) == operators, "operators were replaced or restarted"


def url_of(cluster: Cluster) -> str:
    """Return the database's URL, by the Secret."""
    return base64.b64decode(cluster.get("secret", SECRET)["data"]["url"]).decode()


def rotate(cluster: Cluster, password: str) -> None:
    """The Secret has the new password, in the URL too."""
    data = {
        key: base64.b64decode(text).decode() for key, text in cluster.get("secret", SECRET)["data"].items()
    }
    scheme, _, rest = data["url"].partition("://")
    account, _, place = rest.rpartition("@")
    data["url"] = f"{scheme}://{account.partition(':')[0]}:{password}@{place}"
    if "password" in data:
        data["password"] = password
    cluster.patch("secret", SECRET, {"stringData": data})


def said_by_file(cluster: Cluster, pod: str) -> str:
    """Return what a pod reads."""
    # What it has is Python for certain.
    return cluster.kubectl("exec", pod, "--", "python", "-c", f"print(open({FILE!r}).read())")


def restarts_of(operator: Operator) -> dict[str, int]:
    """Return how often each operator was restarted."""
    return {name: restarts(pod) for name, pod in operator.pods().items()}

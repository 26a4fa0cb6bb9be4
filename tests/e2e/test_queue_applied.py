"""From nothing to a job that is done, by the commands of README, and to a queue, by a ForgeQueue alone."""

import json

from tests.e2e import readme
from tests.e2e.cluster import Cluster
from tests.e2e.database import Database
from tests.e2e.shell import run


def test_what_readme_says_takes_a_newcomer_to_a_job_that_is_done(
    installed: Cluster, database: Database
) -> None:
    commands = readme.commands()
    (helm,) = [place for place, each in enumerate(commands) if each.startswith("helm install")]
    assert len(commands) < 10
    try:
        for command in commands[helm + 1 :]:
            printed = run(command, environment=installed.environment, timeout=240)
        assert json.loads(printed) == {"hello": "world"}  # the last of them waits for the job's result
        assert (
            database.value("SELECT state FROM forge_jobs.jobs WHERE queue = 'mail' AND kind = 'echo'")
            == "done"
        )
    finally:
        installed.kubectl("delete", "-f", "examples/kubernetes/queue.yaml", "--ignore-not-found")


def test_a_queue_without_workers_is_configured(space: Cluster, database: Database) -> None:
    space.apply(
        {
            "apiVersion": "forge-jobs.dev/v1alpha1",
            "kind": "ForgeQueue",
            "metadata": {"name": "configured"},
            "spec": {"concurrency": {"limit": 7}, "backoff": {"enabled": False}, "maxAttempts": 3},
        }
    )
    space.kubectl("wait", "forgequeue/configured", "--for=condition=Ready", "--timeout=60s", timeout=70)
    row = database.rows("SELECT * FROM forge_jobs.queue WHERE name = 'configured'")[0]
    assert (row["concurrency"], row["backoff_enabled"], row["max_attempts"]) == (7, False, 3)
    assert row["managed_by"] == f"ForgeQueue {space.namespace}/configured"
    assert not json.loads(space.kubectl("get", "deployments", "-o", "json"))["items"]

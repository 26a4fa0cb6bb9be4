"""A version that is broken, however that is, has a share for a while and never serves alone; no job is lost by it."""

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.cluster import Cluster, Queue
from tests.e2e.database import Database
from tests.e2e.waiting import always, eventually

Measure = Callable[[str, str], None]

IMAGE = {"name": "worker", "image": "forge-jobs-e2e-handlers:1", "imagePullPolicy": "IfNotPresent"}
TEMPLATE = {"terminationGracePeriodSeconds": 10}
ROLLOUT = {
    "strategy": "Progressive",
    "steps": [{"weightPercent": 25, "pauseSeconds": 30}, {"weightPercent": 50, "pauseSeconds": 30}],
    "abort": {"maxFailurePercent": 30, "handBackSeconds": 5},
}
SPEC = {
    "maxAttempts": -1,
    "backoff": {"baseSeconds": 1, "maxSeconds": 2},
    "workers": {"replicas": 4, "slots": 2, "rollout": ROLLOUT, "template": {"spec": TEMPLATE}},
}

# How version 2 is broken: what its handlers do, what its containers may have, and what the message says.
BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
    "fails": ("yes", {}, " failed ("),
    "hangs": ("hangs", {}, " hang"),
    "crashes": ("crashes", {}, " of version 2 "),
    "leaks until it is killed": (
        "leaks",
        {"requests": {"memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "OOMKilled",
    ),
    "is ten times slower": ("slow", {}, "times as long as those of the previous version"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_version_that_is_broken_is_never_promoted_and_loses_no_job(
    how: str, space: Cluster, database: Database, measure: Measure
) -> None:
    mode, resources, sentence = BROKEN[how]
    name = f"broken-{mode}"
    queue = space.queue(name, SPEC)
    queue.serves("1", pods=4)
    first = database.enqueue(name, 0.4, 20)
    database.are_done(first, within=60)
    jobs = database.enqueue(name, 0.4, 1200, spread=0.25)  # for 300 s, a fifth of what four pods can do

    container = {**IMAGE, "env": [{"name": "E2E_BROKEN", "value": mode}], "resources": resources}
    queue.change({"workers": {"version": "2", "template": {"spec": {"containers": [container]}}}})
    began = time.monotonic()
    condition = queue.becomes("Progressing", "False", "RolloutAborted", within=300)
    seen_after = time.monotonic() - began
    database.hurry(jobs)

    assert sentence in condition["message"], condition
    eventually(lambda: queue.version("2")["state"] == "Failed", within=30, what="version 2 has failed")
    assert queue.status()["currentVersion"]["version"] == "1"
    eventually(lambda: not queue.pods("2"), within=120, what="the pods of version 2 are gone")
    eventually(lambda: len(queue.ready_pods("1")) == 4, within=120, what="version 1 has its pods again")
    database.are_done(first + jobs, within=120)
    assert current_since(database, queue, "2") is None, "version 2 served alone for a moment"
    assert queue.condition("Progressing")["message"] == condition["message"]

    told = database.ledger(first + jobs)
    ended = Counter(line.job_id for line in told if line.what == "ended")
    assert set(ended) == set(first + jobs), "a job was lost"
    if mode not in ("crashes", "leaks"):  # whoever is killed may have ended what nobody knew of yet
        assert ended == Counter(first + jobs), "a job ended twice"
    touched = {line.job_id for line in told if line.version == "2"}
    assert touched, "version 2 had no job, so nothing was shown"
    measure(
        f"a version that {how}: jobs touched by it, until it was seen",
        f"{len(touched)}, {seen_after:.0f} s",
    )
    reasons = {each["reason"] for each in space.all("events")}
    assert "RolloutAborted" in reasons, reasons


def test_jobs_that_hang_cost_no_attempt_when_their_version_goes_back(
    space: Cluster, database: Database
) -> None:
    spec = {**SPEC, "maxAttempts": 1}
    queue = space.queue("stuck", spec)
    queue.serves("1", pods=4)
    jobs = database.enqueue("stuck", 0.4, 600, spread=0.5)
    container = {**IMAGE, "env": [{"name": "E2E_BROKEN", "value": "hangs"}]}
    queue.change({"workers": {"version": "2", "template": {"spec": {"containers": [container]}}}})
    queue.becomes("Progressing", "False", "RolloutAborted", within=240)
    database.hurry(jobs)
    database.are_done(jobs, within=120)  # one that had lost its only attempt would be dead
    assert {row["attempt"] for row in database.jobs(jobs)} == {1}
    assert [line for line in database.ledger(jobs) if line.version == "2"]


def test_a_version_that_gets_no_jobs_is_not_promoted_by_time_alone(
    space: Cluster, database: Database
) -> None:
    queue = space.queue("idle", SPEC)
    queue.serves("1", pods=4)
    queue.change({"workers": {"version": "2"}})

    def is_told() -> bool:
        condition = queue.becomes("Progressing", "True", "Inconclusive", within=10)
        return "has run no job to be judged by" in condition["message"]

    eventually(is_told, within=240, what="it is said that version 2 cannot be judged")
    always(
        lambda: queue.version("2")["state"] == "Ramping",
        during=15,
        what="version 2 waits for jobs",
        every=5,
    )
    assert queue.condition("Ready")["status"] == "True"

    jobs = database.enqueue("idle", 0.2, 1200, spread=0.2)
    queue.serves("2", pods=4)
    database.hurry(jobs)
    database.are_done(jobs, within=120)
    database.ran_once(jobs)


def current_since(database: Database, queue: Queue, version: str) -> datetime | None:
    """Return when the version was the one that serves, by the database's clock; None: it never was."""
    query = "SELECT last_current_at FROM forge_jobs.worker_version"
    pool = queue.object()["metadata"]["uid"]
    found = database.value(f"{query} WHERE version = '{version}' AND pool = '{pool}'")
    return None if found is None else datetime.fromisoformat(found)

"""A new version takes over under load: no job is lost, none runs twice, none is killed."""

import re
from collections.abc import Callable
from datetime import datetime

from tests.e2e.cluster import Cluster
from tests.e2e.database import UNTIL_TOLD, Database
from tests.e2e.waiting import eventually

SHORT, EVERY = 0.2, 0.5  # seconds


def test_a_rollout_under_load_neither_loses_nor_doubles_nor_kills(
    space: Cluster, database: Database, measure: Callable[[str, str], None]
) -> None:
    queue = space.queue("rolled", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    long = database.enqueue("rolled", UNTIL_TOLD, 8)
    database.are_running(long, within=30)
    short = database.enqueue("rolled", SHORT, 240, spread=EVERY)  # for 120 s, across the whole rollout

    queue.change({"workers": {"version": "2"}})
    queue.serves("2", pods=2)
    assert queue.version("1")["state"] == "Draining"
    assert set(queue.deployments()) == {"1", "2"}
    assert len(queue.pods("1")) >= 1, "pods that run jobs were taken away"
    names = {version: each["metadata"]["name"] for version, each in queue.deployments().items()}
    for version, name in names.items():
        assert re.fullmatch(rf"rolled-worker-{version}-[a-z0-9]{{8}}", name)
        assert len(name) <= 46
    database.are_running(long, within=5)  # what ran still runs, in the old version
    database.let_end(long)
    eventually(lambda: not queue.pods("1"), within=90, what="the pods of version 1 are gone")
    database.hurry(short)

    database.are_done(long + short, within=150)
    told = database.ran_once(long + short)
    of_long = {line.version for line in told if line.job_id in long}
    assert of_long == {"1"}
    of_short = {line.version for line in told if line.job_id in short}
    assert of_short == {"1", "2"}
    taken_over = max(line.at for line in told if line.what == "started" and line.version == "1")
    after = [line for line in told if line.what == "started" and line.at > taken_over]
    assert {line.version for line in after} == {"2"}

    started = {line.job_id: line.at for line in told if line.what == "started"}
    due = {row["id"]: datetime.fromisoformat(row["created_at"]) for row in database.jobs(short)}
    waits = [
        (started[job] - due[job]).total_seconds() - EVERY * (place + 1) for place, job in enumerate(short)
    ]
    measure("rollout under load: the longest that a job waited past its time", f"{max(waits):.2f} s")
    measure("rollout under load: jobs, of which lost, doubled, killed", f"{len(long + short)}, 0, 0, 0")

    eventually(
        lambda: queue.version("1")["state"] in ("Drained", "Retired"), within=60, what="version 1 is drained"
    )
    eventually(lambda: not queue.pods("1"), within=90, what="the pods of version 1 are gone")
    database.ran_once(long + short)

"""A namespace can be deleted while no operator is there."""

import time
from collections.abc import Callable

from tests.e2e.cluster import Cluster, Operator
from tests.e2e.database import Database
from tests.e2e.waiting import eventually


def test_a_namespace_goes_though_no_operator_is_there(
    spaces: Callable[[str], Cluster],
    database: Database,
    operator: Operator,
    measure: Callable[[str, str], None],
) -> None:
    doomed, other = spaces("doomed"), spaces("spared")
    # For as long as half a grace period Kubernetes does not even look whether the pods are gone.
    doomed.queue("doomed", {"workers": {"template": {"spec": {"terminationGracePeriodSeconds": 10}}}}).serves(
        "1"
    )
    spared = other.queue("spared")
    spared.serves("1")
    try:
        operator.scale(0)
        began = time.monotonic()
        doomed.kubectl("delete", "namespace", doomed.namespace, "--timeout=150s", timeout=170)
        assert not doomed.exists("namespace", doomed.namespace)
        measure("a namespace deleted without an operator is gone after", f"{time.monotonic() - began:.0f} s")
        # Workers do not need the operator either.
        jobs = database.enqueue("spared", 0, 5)
        database.are_done(jobs, within=60)
        database.ran_once(jobs)
    finally:
        operator.scale(2)
    eventually(
        lambda: database.rows("SELECT managed_by FROM forge_jobs.queue WHERE name = 'doomed'"),
        within=5,
        what="the queue's row stays",
    )
    spared.becomes("Ready", "True", within=90)
    later = database.enqueue("spared")
    database.are_done(later, within=60)

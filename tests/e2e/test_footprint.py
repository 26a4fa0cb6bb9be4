"""What an operator costs that looks after 200 ForgeQueues with nothing to do."""

import time
from collections.abc import Callable

from tests.e2e.cluster import Cluster, Manifest, Operator
from tests.e2e.database import Database
from tests.e2e.waiting import eventually

QUEUES = 200
IDLE = 45.0  # seconds
MEMORY = 120 * 2**20  # bytes


def test_an_operator_of_200_idle_queues_is_small(
    space: Cluster, operator: Operator, database: Database, measure: Callable[[str, str], None]
) -> None:
    began = time.monotonic()
    space.apply(*(queue(number) for number in range(QUEUES)))
    applied = time.monotonic()
    eventually(lambda: ready(space) == QUEUES, within=180, what=f"{QUEUES} queues are ready", every=2)
    measure(
        f"{QUEUES} queues: kubectl apply took, and then ready after",
        f"{applied - began:.0f} s, {time.monotonic() - applied:.0f} s",
    )

    leader = operator.leader()
    before, at = operator.metrics(leader), time.monotonic()
    time.sleep(IDLE)  # how long is what is measured
    after, lasted = operator.metrics(leader), time.monotonic() - at
    memory = after["process_resident_memory_bytes"]
    cpu = 100 * (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / lasted
    looks = (reconciles(after) - reconciles(before)) / lasted
    measure(f"operator at {QUEUES} idle queues: memory", f"{memory / 2**20:.0f} MiB")
    measure(f"operator at {QUEUES} idle queues: CPU, of a core (goal: below 2 %)", f"{cpu:.2f} %")
    measure(f"operator at {QUEUES} idle queues: reconciles", f"{looks:.2f} a second")
    assert operator.leader() == leader
    assert memory < MEMORY


def queue(number: int) -> Manifest:
    """Return a ForgeQueue without workers."""
    return {
        "apiVersion": "forge-jobs.dev/v1alpha1",
        "kind": "ForgeQueue",
        "metadata": {"name": f"idle-{number:03}"},
        "spec": {"concurrency": {"limit": 1 + number}},
    }


def ready(space: Cluster) -> int:
    """Return how many ForgeQueues are ready."""
    path = '{range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}'
    return space.kubectl("get", "forgequeues", "-o", f"jsonpath={path}").split().count("True")


def reconciles(metrics: dict[str, float]) -> float:
    """Return how often an operator has looked at an object."""
    return sum(value for name, value in metrics.items() if name.startswith("forge_operator_reconcile_total"))

"""The settings of an operator, as far as plans and manifests need them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from forge_jobs.settings import CONNECTIONS


@dataclass(frozen=True, slots=True)
class SecretKey:
    """Where the database's address is: a Secret in the namespace of the ForgeQueue."""

    name: str = "forge-jobs-database"
    key: str = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """The settings that hold for every ForgeQueue of one operator."""

    database: SecretKey = field(default_factory=SecretKey)
    schema: str = "forge_jobs"
    connection_hash: str | None = None  # set: workers are rolled in place when it changes
    metrics_port: int = 9090  # of workers
    grace_seconds: int = 120  # terminationGracePeriodSeconds of templates that say nothing
    topology_spread: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)  # for every worker; a template's own win
    # the most that a worker may open; 0: workers use their default, and are not counted
    connections_per_worker: int = CONNECTIONS
    # what the API server can do
    honours_deletion_cost: bool = True  # False before Kubernetes 1.22: victims are deleted by name
    policy_version: str = "policy/v1"  # of its PodDisruptionBudgets; policy/v1beta1 before Kubernetes 1.21
    evicts_unhealthy: bool = (
        True  # whether a budget may let go who is not ready; False before Kubernetes 1.27
    )

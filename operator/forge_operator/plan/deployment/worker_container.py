"""The container of the worker: the user's, with port, probes and variables."""

import re
from collections.abc import Mapping
from typing import Any

from forge_operator.plan.deployment.volumes import mounts
from forge_operator.state.settings import OperatorSettings

GRACE_MARGIN = 10
"""Seconds before the end of a pod's grace period at which its worker hands back unfinished jobs, at most half of the period.

A worker then needs up to 3 s for its handlers to stop, and up to 5 s for its last writes when the
database is slow.
"""

PORT_NAME = "metrics"


def as_worker(
    container: dict[str, Any], injected: list[dict[str, Any]], settings: OperatorSettings, grace: int
) -> dict[str, Any]:
    """Return the worker's container with its environment, port, probes and a place for temporary files."""
    given = container.get("env") or []
    values = {variable.get("name"): variable.get("value") for variable in given}
    defaults = {
        "FORGE_METRICS_PORT": str(settings.metrics_port),
        "FORGE_GRACE_SECONDS": str(grace - min(GRACE_MARGIN, grace // 2)),
        "FORGE_AUTO_MIGRATE": "false",
        "FORGE_LOG_FORMAT": "json",
        **settings.environment,
    }
    if settings.connections_per_worker:
        defaults["FORGE_MAX_CONNECTIONS"] = str(settings.connections_per_worker)
    added = [{"name": key, "value": value} for key, value in defaults.items() if key not in values]
    port = port_of(values.get("FORGE_METRICS_PORT"), settings)
    worker = {**container, "env": [*injected, *added, *given], "ports": ports(container, port)}
    worker["securityContext"] = {"readOnlyRootFilesystem": True, **worker["securityContext"]}
    worker["volumeMounts"] = mounts(worker)
    # Then Kubernetes knows the last lines of one that crashed, and conditions repeat the very last.
    worker.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    worker.setdefault("livenessProbe", probe("/healthz", port, after=10, every=10, failures=6))
    worker.setdefault("readinessProbe", probe("/readyz", port, after=3, every=5, failures=3))
    return worker


def port_of(value: object, settings: OperatorSettings) -> int:
    """Return the port of the worker's probes: the one in the template, if that is a number."""
    return int(str(value)) if re.fullmatch("0*[1-9][0-9]{0,4}", str(value)) else settings.metrics_port


def ports(container: Mapping[str, Any], port: int) -> list[dict[str, Any]]:
    """Return the container's ports with that of the metrics."""
    given = container.get("ports") or []
    if any(declared.get("name") == PORT_NAME or declared.get("containerPort") == port for declared in given):
        return list(given)
    return [*given, {"name": PORT_NAME, "containerPort": port, "protocol": "TCP"}]


def probe(path: str, port: int, *, after: int, every: int, failures: int) -> dict[str, Any]:
    """Return a probe of the worker. What fails while it starts would be a Warning of Kubernetes."""
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": after,
        "periodSeconds": every,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }

"""What HTTP answers a supervisor."""

from forge_jobs.probes.server import HealthServer

__all__ = ["HealthServer"]

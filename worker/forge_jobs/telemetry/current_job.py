"""Which job the code that runs belongs to."""

from contextvars import ContextVar

from forge_jobs.model.job import Claim

current_job: ContextVar[tuple[Claim, str] | None] = ContextVar("current_job", default=None)
"""The job whose handler runs here, and the name of its queue; None outside of handlers."""

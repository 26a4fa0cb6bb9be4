"""Who manages queues and crons."""

from typing import Protocol

from forge_jobs.model.owner import Owner


class Owners(Protocol):
    """Those who manage rows of queues, rate limits and crons."""

    async def all(self) -> list[Owner]:
        """Return them by name."""

    async def dismiss(self, name: str) -> Owner:
        """The owner's rows are managed by nobody; return which. Raises UnknownOwner."""

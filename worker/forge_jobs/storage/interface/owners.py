"""Who manages queues, rate limits and crons."""

from typing import Protocol

from forge_jobs.model.owner import Owner


class Owners(Protocol):
    """Those who manage queues, rate limits and crons."""

    async def all(self) -> list[Owner]:
        """Return all owners by name."""

    async def dismiss(self, name: str, *, by: str | None = None) -> Owner:
        """The owner's rows are managed by nobody; return which. Raises UnknownOwner."""

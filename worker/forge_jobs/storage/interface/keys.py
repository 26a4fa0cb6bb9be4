"""Keys, by which people name the living jobs that have them."""

from typing import Any, Protocol

from forge_jobs.model.job import Removed


class Keys(Protocol):
    """Keys of jobs that have not ended."""

    async def holder(self, kind: str, key: str) -> int | None:
        """Return the id of the living job of `kind` that has `key`; None: there is none."""

    async def remove(self, kind: str, key: str, *, connection: Any = None, by: str | None = None) -> Removed:
        """The living job of `kind` that has `key` is gone; one that runs loses the key, and is never tried again.

        With `connection` that is part of the caller's transaction. Raises KeyBusy.
        """

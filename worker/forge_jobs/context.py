"""What a handler is given besides its payload."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from forge_jobs.job import Claim, Enqueued

if TYPE_CHECKING:
    from forge_jobs.app import Forge


class Tokens(Protocol):
    """Rate limits, as a handler uses them."""

    async def acquire(self, scope: str, tokens: int = 1, *, wait: timedelta | float | None = None) -> None:
        """`tokens` of the rate limit are spent.

        Waits up to `wait` (seconds or timedelta, default one second) for them, and raises
        Throttled with the time to try again when that is too short: the job then waits
        without an attempt counted. Raises UnknownScope, and InvalidInput when the rate limit
        can never hold so many.
        """

    async def drain(self, scope: str) -> None:
        """The bucket is empty for the whole cluster: call it when the other side answered 429."""


class Context:
    """One attempt at one job, as its handler sees it."""

    __slots__ = ("_cancelled", "claim", "forge", "queue", "rate_limit")

    def __init__(self, claim: Claim, queue: str, forge: "Forge", rate_limit: Tokens) -> None:
        self.claim = claim
        self._cancelled = False
        self.queue = queue
        self.forge = forge
        self.rate_limit = rate_limit

    @property
    def job_id(self) -> int:
        return self.claim.job_id

    @property
    def kind(self) -> str:
        return self.claim.kind

    @property
    def key(self) -> str | None:
        return self.claim.key

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.claim.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has; 0 means no end."""
        return self.claim.max_attempts

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt makes the job dead."""
        return self.claim.is_last_attempt

    @property
    def created_at(self) -> datetime:
        """When the job was enqueued, by the database's clock."""
        return self.claim.created_at

    @property
    def is_cancelled(self) -> bool:
        """Whether the handler should end: its job was cancelled or timed out, or the worker stops.

        An async handler is told by asyncio.CancelledError. One that runs in a thread
        cannot be interrupted, so it has to look here now and then.
        """
        return self._cancelled

    def cancel(self) -> None:
        """`is_cancelled` is true from now on. The worker calls this; it does not cancel the job."""
        self._cancelled = True

    async def enqueue(self, kind: str, payload: Mapping[str, Any] | None = None, **options: Any) -> Enqueued:
        """Enqueue another job; the same as `forge.enqueue`."""
        return await self.forge.enqueue(kind, payload, **options)

"""Rate limits, as a worker's process has them and as handlers use them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from forge_jobs.rules import names
from forge_jobs.rules.cost import checked_cost

if TYPE_CHECKING:
    from forge_jobs.handlers.context import Context
    from forge_jobs.model.job import Claim
    from forge_jobs.model.permit import Taken


class ProcessTokens(Protocol):
    """Rate limits, as a worker's process has them."""

    async def acquire(self, scope: str, tokens: float = 1, *, wait: timedelta | float | None = None) -> None:
        """`tokens` of the rate limit are spent."""

    async def take_of_keys(
        self,
        tokens: Sequence[tuple[str, str, float]],
        *,
        wait: timedelta | float | None,
        claim: "Claim",
        taken: "Taken",
    ) -> None:
        """The tokens (scope, key, cost) of all these keys are spent, for this job, and are among the `taken` of its run."""

    def taken(self) -> "Taken":
        """Return what a run has taken that begins now: nothing."""

    def has_paid(self, claim: "Claim") -> bool:
        """Whether all tokens of keys that the job, which begins now, needs to begin were taken ahead; they are spent then."""

    async def pays(self, claim: "Claim") -> bool:
        """As `has_paid`, as soon as what was asked for the job is answered."""

    async def empty(self, scope: str) -> None:
        """The bucket is empty for the whole cluster."""


class ContextTokens:
    """Rate limits, as a handler uses them. In an async handler each call is to be awaited, in a plain one it waits."""

    __slots__ = ("_context", "_tokens")

    def __init__(self, context: "Context", tokens: ProcessTokens) -> None:
        self._context = context
        self._tokens = tokens

    def acquire(
        self,
        scope: str,
        tokens: float = 1,
        *,
        key: str | None = None,
        wait: timedelta | float | None = None,
    ) -> Any:
        """`tokens` of the rate limit are spent; with `key`, of the bucket that the key has for itself.

        Waits up to `wait` (seconds or timedelta, default one second) for them, and raises
        Throttled with the time to try again when that is too short: the job then waits
        without an attempt counted. With `key`, it waits for the turn that is kept for it, and the other
        jobs of its queue go on; only then `tokens` may be a fraction. Raises UnknownScope, and
        InvalidInput when the rate limit can never hold so many.
        """
        if key is not None:
            work = self._context.take_of_keys([(scope, names.key(key), checked_cost(tokens))], wait=wait)
            return self._context.answer(work, "ctx.rate_limit")
        return self._context.answer(self._tokens.acquire(scope, tokens, wait=wait), "ctx.rate_limit")

    def empty(self, scope: str) -> Any:
        """The bucket is empty for the whole cluster: call it when the other side answered 429."""
        return self._context.answer(self._tokens.empty(scope), "ctx.rate_limit")

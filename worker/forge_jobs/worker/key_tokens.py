"""Tokens of rate limits by key, for the handlers of this process.

What handlers ask for at one moment is one statement: while it is on its way, the next one gathers.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context as Variables
from datetime import timedelta

from forge_jobs.errors import InvalidInput, StorageUnavailable, StorageUnusable
from forge_jobs.model.decision import AwaitsTurn, Throttled
from forge_jobs.model.permit import Permit, PermitRequest
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry

MOST_AT_ONCE = 1000  # requests of one statement
RETRY = 1.0  # seconds, when the database cannot be asked


class KeyTokens:
    """Permits of one process. What a handler was granted and does not use is spent: too few, never too many."""

    def __init__(self, permits: Permits, telemetry: Telemetry) -> None:
        self._permits = permits
        self._telemetry = telemetry
        self._asked: list[tuple[PermitRequest, asyncio.Future[Permit]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def take(
        self,
        tokens: Sequence[tuple[str, str, float]],
        patience: timedelta,
        job_id: int,
        taken: list[PermitRequest],
    ) -> None:
        """The tokens (scope, key, cost) of all these keys are spent, may be used now, and are among the `taken`.

        `taken` are those that this run of the job has taken before. Waits up to `patience`. Raises
        AwaitsTurn when some come later: then all are kept for the job, the taken ones as well, so that
        it pays none of them twice.
        """
        wanted: list[PermitRequest] = []
        for scope, key, cost in tokens:
            take = 1 + sum((one.scope, one.key) == (scope, key) for one in (*taken, *wanted))
            wanted.append(PermitRequest(scope, key, cost, job_id, take, patience))
        permits = await asyncio.gather(*map(self._permit, wanted))
        last = max(permits, key=lambda permit: permit.at)
        if last.wait > patience:
            granted = [one for one, permit in zip(wanted, permits, strict=True) if permit.wait <= patience]
            if taken or granted:
                await self._permits.keep([*taken, *granted])
            raise AwaitsTurn(last.at, f"rate limit {last.scope!r} has a token for {last.key!r} then")
        taken.extend(wanted)
        await asyncio.sleep(last.wait.total_seconds())

    async def _permit(self, request: PermitRequest) -> Permit:
        answer: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._asked.append((request, answer))
        if self._asking is None or self._asking.done():
            # In no job's context: it asks for all of them.
            self._asking = OwnTask(self._ask(), self._telemetry, name="tokens of keys", context=Variables())
        return await answer

    async def close(self) -> None:
        """Nobody is answered any more."""
        if self._asking is not None:
            self._asking.cancel()
        for _, answer in self._asked:
            answer.cancel()
        self._asked.clear()

    async def _ask(self) -> None:
        while self._asked:
            asked, self._asked = self._asked[:MOST_AT_ONCE], self._asked[MOST_AT_ONCE:]
            await self._answer([each for each in asked if not each[1].done()])

    async def _answer(self, asked: list[tuple[PermitRequest, asyncio.Future[Permit]]]) -> None:
        try:
            permits = await self._permits.reserve([request for request, _ in asked])
        except asyncio.CancelledError:
            for _, answer in asked:
                answer.cancel()
            raise
        except Exception as error:
            if isinstance(error, InvalidInput) and len(asked) > 1:  # it is the mistake of one of them
                for each in asked:
                    await self._answer([each])
                return
            for request, answer in asked:
                if not answer.done():
                    answer.set_exception(_as_decision(error, request))
            return
        for (_, answer), permit in zip(asked, permits, strict=True):
            if not answer.done():
                answer.set_result(permit)


def _as_decision(error: Exception, request: PermitRequest) -> Exception:
    """Return what a handler hears. An outage is no mistake of the job: it is throttled, which counts no attempt."""
    if isinstance(error, StorageUnavailable) and not isinstance(error, StorageUnusable):
        return Throttled(RETRY, f"rate limit {request.scope!r} cannot be asked: {error}")
    return error

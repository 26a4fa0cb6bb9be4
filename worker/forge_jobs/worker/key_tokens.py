"""Tokens of rate limits by key, for the handlers of this process.

What handlers ask for at one moment is one statement: while it is on its way, the next one gathers.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from contextvars import Context as Variables
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.errors import ForgeError, InvalidInput, StorageUnavailable, StorageUnusable
from forge_jobs.model.decision import AwaitsTurn, Throttled
from forge_jobs.model.permit import Permit, PermitRequest
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.telemetry import Telemetry

MOST_AT_ONCE = 1000  # requests of one statement
FRESH = 0.5  # seconds within which a job has to begin with tokens that were taken for it when it was claimed
RETRY = 1.0  # seconds, when the database cannot be asked


@dataclass(frozen=True, slots=True)
class Advance:
    """What was asked for a job before it begins."""

    tokens: Sequence[tuple[str, str, float]]
    asked: Sequence[tuple[PermitRequest, asyncio.Future[Permit]]]
    at: float  # an `uptime`

    @property
    def is_answered(self) -> bool:
        """Whether the database has said when it may have each of the tokens."""
        return all(answer.done() for _, answer in self.asked)

    def granted(self) -> list[PermitRequest]:
        """Return what it was given at once. What comes later is kept for the job by the database."""
        return [
            request
            for request, answer in self.asked
            if answer.done()
            and not answer.cancelled()
            and answer.exception() is None
            and answer.result().wait <= request.patience
        ]


class KeyTokens:
    """Permits of one process. What a handler was granted and does not use is spent: too few, never too many."""

    def __init__(self, permits: Permits, telemetry: Telemetry) -> None:
        self._permits = permits
        self._telemetry = telemetry
        self._asked: list[tuple[PermitRequest, asyncio.Future[Permit]]] = []
        self._asking: asyncio.Task[None] | None = None
        self._advances: dict[int, Advance] = {}  # by job, the oldest first
        self._unused: list[Advance] = []  # that no job takes any more
        self._expiry: asyncio.TimerHandle | None = None
        self._returning: set[asyncio.Task[None]] = set()

    def take_ahead(self, job_id: int, tokens: Sequence[tuple[str, str, float]]) -> None:
        """The job, which was claimed and will soon begin, has its tokens asked for. If it does not begin soon, they go back."""
        if job_id in self._advances:  # it was handed back and claimed again
            return
        wanted = _requests(tokens, timedelta(0), job_id, ())
        asked = [(request, self._ask_for(request)) for request in wanted]
        self._advances[job_id] = Advance(tokens, asked, uptime())
        self._expire_later()

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
        asked = self._asked_before(job_id, tokens) if self._advances and not taken else None
        if asked is None:
            asked = [(one, self._ask_for(one)) for one in _requests(tokens, patience, job_id, taken)]
        wanted = [request for request, _ in asked]
        permits = (
            [await asked[0][1]] if len(asked) == 1 else await asyncio.gather(*(each[1] for each in asked))
        )
        last = max(permits, key=lambda permit: permit.at)
        if last.wait > patience:
            granted = [one for one, permit in zip(wanted, permits, strict=True) if permit.wait <= patience]
            if taken or granted:
                await self._permits.keep([*taken, *granted])
            raise AwaitsTurn(last.at, f"rate limit {last.scope!r} has a token for {last.key!r} then")
        taken.extend(wanted)
        if last.wait:
            await asyncio.sleep(last.wait.total_seconds())

    def _asked_before(
        self, job_id: int, tokens: Sequence[tuple[str, str, float]]
    ) -> Sequence[tuple[PermitRequest, asyncio.Future[Permit]]] | None:
        """Return what was asked for the job, if it is what it asks for, and no older than it may be."""
        advance = self._advances.pop(job_id, None)
        if advance is None:
            return None
        if advance.tokens == tokens and not (advance.is_answered and uptime() - advance.at > FRESH):
            return advance.asked
        self._unused.append(advance)
        self._expire_later()
        return None

    def void(self, scope: str) -> None:
        """The buckets of the rate limit were emptied: jobs that have not begun ask anew."""
        for job_id, advance in list(self._advances.items()):
            if any(token[0] == scope for token in advance.tokens):
                self._unused.append(self._advances.pop(job_id))  # it may have tokens of other limits

    def _ask_for(self, request: PermitRequest) -> asyncio.Future[Permit]:
        answer: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._asked.append((request, answer))
        if self._asking is None or self._asking.done():
            # In no job's context: it asks for all of them.
            self._asking = OwnTask(self._ask(), self._telemetry, name="tokens of keys", context=Variables())
        return answer

    def _expire_later(self) -> None:
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(FRESH, self._expire)

    def _expire(self) -> None:
        """Tokens that were taken for jobs that have not begun since go back."""
        self._expiry = None
        for job_id, advance in list(self._advances.items()):
            if uptime() - advance.at <= FRESH:
                break
            self._unused.append(self._advances.pop(job_id))
        granted = [
            request for advance in self._unused if advance.is_answered for request in advance.granted()
        ]
        self._unused = [advance for advance in self._unused if not advance.is_answered]
        if granted:
            returning = OwnTask(
                self._returned(granted), self._telemetry, name="unused tokens of keys", context=Variables()
            )
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
        if self._advances or self._unused:
            self._expire_later()

    async def _returned(self, unused: Sequence[PermitRequest]) -> None:
        with suppress(ForgeError):  # they are lost to the bucket, which refills: too few, never too many
            await self._permits.give_back(unused)

    async def close(self) -> None:
        """Nobody is answered any more, and what was taken for jobs that have not begun goes back."""
        if self._expiry is not None:
            self._expiry.cancel()
        left = [*self._advances.values(), *self._unused]
        unused = [request for advance in left for request in advance.granted()]
        self._advances.clear()
        self._unused.clear()
        if self._asking is not None:
            self._asking.cancel()
        for _, answer in self._asked:
            answer.cancel()
        self._asked.clear()
        if unused:
            await self._returned(unused)
        if self._returning:
            await asyncio.wait(self._returning)

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


def _requests(
    tokens: Sequence[tuple[str, str, float]],
    patience: timedelta,
    job_id: int,
    taken: Sequence[PermitRequest],
) -> list[PermitRequest]:
    """Return what a job asks for that has taken the `taken`."""
    wanted: list[PermitRequest] = []
    for scope, key, cost in tokens:
        take = 1
        if taken or wanted:
            take += sum((one.scope, one.key) == (scope, key) for one in (*taken, *wanted))
        wanted.append(PermitRequest(scope, key, cost, job_id, take, patience))
    return wanted


def _as_decision(error: Exception, request: PermitRequest) -> Exception:
    """Return what a handler hears. An outage is no mistake of the job: it is throttled, which counts no attempt."""
    if isinstance(error, StorageUnavailable) and not isinstance(error, StorageUnusable):
        return Throttled(RETRY, f"rate limit {request.scope!r} cannot be asked: {error}")
    return error

"""Tokens of rate limits by key, for the handlers of this process.

What handlers ask for at one moment is one statement: while it is on its way, the next one gathers.

A token belongs to the job that it was granted to. A job that is no longer in hand and has not begun keeps it in the
database, where it finds it when it is claimed again, by whomever. No token of a job goes back to its bucket.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import Context as Variables
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.errors import InvalidInput, StorageUnavailable, StorageUnusable
from forge_jobs.model.decision import AwaitsTurn, Throttled
from forge_jobs.model.permit import Granted, Permit, PermitRequest
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry

MOST_AT_ONCE = 1000  # requests of one statement
RETRY = 1.0  # seconds, when the database cannot be asked
LONGEST_ANSWER = (
    2.0  # seconds for which outcomes wait until it is known what a job that has not begun was granted
)

Asked = tuple[PermitRequest, asyncio.Future[Permit]]


@dataclass(slots=True)
class Advance:
    """What was asked for a job before it begins."""

    tokens: Sequence[tuple[str, str, float]]
    asked: Sequence[Asked]

    async def answered(self) -> None:
        """The database has said when the job may have each of the tokens, or that it cannot say."""
        while waiting := [answer for _, answer in self.asked if not answer.done()]:
            await asyncio.wait(waiting)  # which, cancelled, leaves the answers alone

    def granted(self) -> list[Granted]:
        """Return what it was given at once. What comes later is kept for the job by the database already."""
        return [
            (request, answer.result())
            for request, answer in self.asked
            if answer.done()
            and not answer.cancelled()
            and answer.exception() is None
            and answer.result().wait <= request.patience
        ]

    def drop(self) -> None:
        """Nobody wants to hear the answers."""
        for _, answer in self.asked:
            _drop(answer)


class KeyTokens:
    """Permits of one process."""

    def __init__(self, permits: Permits, telemetry: Telemetry) -> None:
        self._permits = permits
        self._telemetry = telemetry
        self._asked: list[Asked] = []
        self._asking: asyncio.Task[None] | None = None
        self.advances: dict[int, Advance] = {}
        """What was asked for jobs that have not begun, by job."""

    def take_ahead(self, job_id: int, tokens: Sequence[tuple[str, str, float]]) -> None:
        """The job, which was claimed and will soon begin, has its tokens asked for."""
        wanted = _requests(tokens, timedelta(0), job_id, ())
        self.advances[job_id] = Advance(tokens, [(request, self._ask_for(request)) for request in wanted])

    async def keep(self, job_ids: Iterable[int]) -> None:
        """Of these jobs, which will not begin here, those that were granted tokens find them when they ask again; those that
        are not answered soon are none of them, since outcomes wait for this.

        May be called again, until they are forgotten. Raises StorageUnavailable.
        """
        granted: list[Granted] = []
        left = {job_id: self.advances[job_id] for job_id in job_ids if job_id in self.advances}
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_ANSWER):
                for advance in left.values():
                    await advance.answered()
        for advance in left.values():
            granted += advance.granted()
        if granted:
            await self._permits.keep(granted)

    def forget(self, job_ids: Iterable[int]) -> None:
        """These jobs are no longer this process's."""
        for job_id in job_ids:
            if advance := self.advances.pop(job_id, None):
                advance.drop()

    async def take(
        self,
        tokens: Sequence[tuple[str, str, float]],
        patience: timedelta,
        job_id: int,
        taken: list[Granted],
    ) -> None:
        """The tokens (scope, key, cost) of all these keys are spent, may be used now, and are among the `taken`.

        `taken` are those that this run of the job has taken before. Waits up to `patience`. Raises
        AwaitsTurn when some come later: then all are kept for the job, the taken ones as well, so that
        it pays none of them twice.
        """
        asked = await self._asked_before(job_id, tokens) if self.advances and not taken else None
        if asked is None:
            asked = [(one, self._ask_for(one)) for one in _requests(tokens, patience, job_id, taken)]
        permits = (
            [await asked[0][1]] if len(asked) == 1 else await asyncio.gather(*(each[1] for each in asked))
        )
        granted = [(request, permit) for (request, _), permit in zip(asked, permits, strict=True)]
        last = max(permits, key=lambda permit: permit.at)
        if last.time_stands_still:
            patience = timedelta(0)
        if last.wait > patience:
            taken = [*taken, *(one for one in granted if one[1].wait <= patience)]
            if taken:
                await self._permits.keep(taken)
            raise AwaitsTurn(last.at, f"rate limit {last.scope!r} has a token for {last.key!r} then")
        taken.extend(granted)
        if last.wait:
            await asyncio.sleep(last.wait.total_seconds())

    async def _asked_before(
        self, job_id: int, tokens: Sequence[tuple[str, str, float]]
    ) -> Sequence[Asked] | None:
        """Return what was asked for the job, if it is what it asks for. Until that is answered it has not begun."""
        advance = self.advances.get(job_id)
        if advance is None:
            return None
        await advance.answered()
        if self.advances.get(job_id) is not advance:  # the job was taken from here meanwhile
            return None
        del self.advances[job_id]
        if advance.tokens == tokens:
            return advance.asked
        advance.drop()
        return None

    def void(self, scope: str) -> None:
        """The buckets of the rate limit were emptied: for jobs that have not begun their tokens are asked for anew."""
        for advance in self.advances.values():
            advance.asked = [
                self._anew(request, answer) if request.scope == scope else (request, answer)
                for request, answer in advance.asked
            ]

    def _anew(self, request: PermitRequest, answer: asyncio.Future[Permit]) -> Asked:
        _drop(answer)
        return request, self._ask_for(request)

    def _ask_for(self, request: PermitRequest) -> asyncio.Future[Permit]:
        answer: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        self._asked.append((request, answer))
        if self._asking is None or self._asking.done():
            # In no job's context: it asks for all of them.
            self._asking = OwnTask(self._ask(), self._telemetry, name="tokens of keys", context=Variables())
        return answer

    async def close(self) -> None:
        """Nobody is answered any more."""
        self.forget(list(self.advances))
        if self._asking is not None:
            self._asking.cancel()
        for _, answer in self._asked:
            answer.cancel()
        self._asked.clear()

    async def _ask(self) -> None:
        while self._asked:
            asked, self._asked = self._asked[:MOST_AT_ONCE], self._asked[MOST_AT_ONCE:]
            if asked := [each for each in asked if not each[1].done()]:
                await self._answer(asked)

    async def _answer(self, asked: list[Asked]) -> None:
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


def _drop(answer: asyncio.Future[Permit]) -> None:
    """Nobody wants to hear the answer. It is not asked for if it was not yet."""
    if not answer.cancel() and not answer.cancelled():
        answer.exception()  # else asyncio says that nobody has looked at it


def _requests(
    tokens: Sequence[tuple[str, str, float]],
    patience: timedelta,
    job_id: int,
    taken: Sequence[Granted],
) -> list[PermitRequest]:
    """Return what a job asks for that has taken the `taken`."""
    wanted: list[PermitRequest] = []
    for scope, key, cost in tokens:
        take = 1
        if taken or wanted:
            before = (*(request for request, _ in taken), *wanted)
            take += sum((one.scope, one.key) == (scope, key) for one in before)
        wanted.append(PermitRequest(scope, key, cost, job_id, take, patience))
    return wanted


def _as_decision(error: Exception, request: PermitRequest) -> Exception:
    """Return what a handler hears. An outage is no mistake of the job: it is throttled, which counts no attempt."""
    if isinstance(error, StorageUnavailable) and not isinstance(error, StorageUnusable):
        return Throttled(RETRY, f"rate limit {request.scope!r} cannot be asked: {error}")
    return error

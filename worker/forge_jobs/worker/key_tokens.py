"""Tokens of rate limits by key, for the handlers of this process.

What handlers ask for at one moment is one statement: while it is on its way, the next one gathers.

A token belongs to the job that it was granted to. A job that is no longer in hand and has not begun, or could not get all
the tokens that it asked for, keeps it in the database, where it finds it when it is claimed again, by whomever. No token that
a job may have used goes back to its bucket.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from contextvars import Context as Variables
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from forge_jobs.errors import InvalidInput, StorageUnavailable, StorageUnusable
from forge_jobs.model.decision import AwaitsTurn, Throttled
from forge_jobs.model.permit import Granted, Permit, PermitRequest, Taken
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry

MOST_AT_ONCE = 1000  # requests of one statement
AT_ONCE = timedelta(0)
RETRY = 1.0  # seconds, when the database cannot be asked
LONGEST_ANSWER = (
    2.0  # seconds for which outcomes wait until it is known what a job that has not begun was granted
)


class Answer(msgspec.Struct, eq=False):
    """What becomes of one request. It is told together with those of other requests."""

    request: PermitRequest
    told: asyncio.Event
    outcome: Permit | BaseException | None = None  # None: nobody knows yet

    @property
    def granted(self) -> Permit | None:
        """The tokens may be used now with this permit. What comes later is kept for the job by the database already."""
        outcome = self.outcome
        return outcome if type(outcome) is Permit and outcome.wait <= self.request.patience else None

    async def permit(self) -> Permit:
        """Return what was answered, as soon as it is, or raise it."""
        while self.outcome is None:
            await self.told.wait()
        if isinstance(self.outcome, Permit):
            return self.outcome
        raise self.outcome

    def drop(self) -> None:
        """Nobody wants to hear it. It is not asked for if it was not yet."""
        if self.outcome is None:
            self.outcome = asyncio.CancelledError()


@dataclass(slots=True)
class Gathering:
    """Requests of one statement."""

    answers: list[Answer] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Who waits for an answer has it, or is told that there will be none."""
        for answer in self.answers:
            answer.drop()
        self.told.set()


class Advance(msgspec.Struct, eq=False):
    """What was asked for a job that has not used it: before it begins, or when it did not get all."""

    tokens: Sequence[tuple[str, str, float]]  # none if it did not get all: what it lacks is asked for anew
    answers: list[Answer]
    taken: Sequence[Granted] = ()  # what it got before, and would pay again in another run

    async def answered(self) -> None:
        """The database has said when the job may have each of the tokens, or that it cannot say."""
        while waiting := [answer for answer in self.answers if answer.outcome is None]:
            await waiting[0].told.wait()

    def granted(self) -> list[Granted]:
        """Return what it was given at once, and what it has got before."""
        at_once = [
            (answer.request, permit) for answer in self.answers if (permit := answer.granted) is not None
        ]
        return [*self.taken, *at_once]

    def drop(self) -> None:
        """Nobody wants to hear the answers."""
        for answer in self.answers:
            answer.drop()


class KeyTokens:
    """Permits of one process."""

    def __init__(self, permits: Permits, telemetry: Telemetry) -> None:
        self._permits = permits
        self._telemetry = telemetry
        self._gathered: deque[Gathering] = deque()  # what is to be asked, in this order
        self._asking: asyncio.Task[None] | None = None
        self.advances: dict[int, Advance] = {}
        """What was asked for jobs that have not used it, by job."""

    def take_ahead(self, job_id: int, tokens: Sequence[tuple[str, str, float]]) -> None:
        """The job, which was claimed and will soon begin, has its tokens asked for."""
        wanted = _requests(tokens, AT_ONCE, job_id, None)
        self.advances[job_id] = Advance(tokens, [self._ask_for(request) for request in wanted])

    def has_paid(self, job_id: int) -> bool:
        """Whether the job, which begins now, has got all that was asked for it: then it needs to ask for nothing."""
        advance = self.advances.get(job_id)
        if advance is None:
            return False
        for answer in advance.answers:
            if answer.granted is None:
                return False
        del self.advances[job_id]
        return True

    async def keep(self, job_ids: Iterable[int]) -> None:
        """Of these jobs, which do not go on here, those that were granted tokens and have not used them find them when they ask
        again; those that are not answered soon are none of them, since outcomes wait for this.

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
        taken: Taken,
    ) -> None:
        """The tokens (scope, key, cost) of all these keys are spent, may be used now, and are among the `taken`.

        `taken` are those that this run of the job has taken before. Waits up to `patience`. Raises
        AwaitsTurn when some come later: then all are kept for the job, the taken ones as well, so that
        it pays none of them twice.
        """
        answers = await self._answered_before(job_id, tokens) if self.advances else None
        if answers is None:
            answers = [self._ask_for(request) for request in _requests(tokens, patience, job_id, taken)]
        try:
            granted = [(answer.request, await answer.permit()) for answer in answers]
            last = max([permit for _, permit in granted], key=lambda permit: permit.at)
            if last.time_stands_still:
                patience = AT_ONCE
            if last.wait > patience:
                self._leave(job_id, answers, taken.last)
                raise AwaitsTurn(last.at, f"rate limit {last.scope!r} has a token for {last.key!r} then")
            if last.wait:
                await asyncio.sleep(last.wait.total_seconds())
        except AwaitsTurn:
            raise
        except BaseException:
            self._leave(job_id, answers)
            raise
        taken.add(granted)

    def _leave(self, job_id: int, answers: list[Answer], taken: Sequence[Granted] = ()) -> None:
        """The job, which does not get all that it asked for, is kept what it was granted of it if it runs again."""
        if taken or any(answer.outcome is None or answer.granted is not None for answer in answers):
            self.advances[job_id] = Advance((), answers, list(taken))

    async def _answered_before(
        self, job_id: int, tokens: Sequence[tuple[str, str, float]]
    ) -> list[Answer] | None:
        """Return what was asked for the job, if it is what it asks for, and keep it for the job otherwise. Until that is
        answered it has not begun.
        """
        advance = self.advances.get(job_id)
        if advance is None:
            return None
        await advance.answered()
        if self.advances.get(job_id) is not advance:  # the job was taken from here meanwhile
            return None
        is_wanted = advance.tokens == tokens
        if not is_wanted:
            advance.taken = ()  # this run has it
            await self._keep(advance.granted())
        self.advances.pop(job_id, None)
        return advance.answers if is_wanted else None

    async def _keep(self, granted: Sequence[Granted]) -> None:
        if granted:
            try:
                await self._permits.keep(granted)
            except StorageUnavailable as error:
                raise _as_decision(error, granted[0][0]) from error

    def void(self, scope: str) -> None:
        """The buckets of the rate limit were emptied: for jobs that have not begun their tokens are asked for anew."""
        for advance in self.advances.values():
            advance.answers = [
                self._anew(answer) if answer.request.scope == scope else answer for answer in advance.answers
            ]

    def _anew(self, answer: Answer) -> Answer:
        answer.drop()
        return self._ask_for(answer.request)

    def _ask_for(self, request: PermitRequest) -> Answer:
        gathered = self._gathered
        if not gathered or len(gathered[-1].answers) >= MOST_AT_ONCE:
            gathered.append(Gathering())
            if self._asking is None or self._asking.done():
                # In no job's context: it asks for all of them.
                self._asking = OwnTask(
                    self._ask(), self._telemetry, name="tokens of keys", context=Variables()
                )
        last = gathered[-1]
        answer = Answer(request, last.told)
        last.answers.append(answer)
        return answer

    async def close(self) -> None:
        """Nobody is answered any more."""
        self.forget(list(self.advances))
        if self._asking is not None:
            self._asking.cancel()
        for gathering in self._gathered:
            gathering.tell()
        self._gathered.clear()

    async def _ask(self) -> None:
        while self._gathered:
            gathering = self._gathered.popleft()
            try:
                if asked := [answer for answer in gathering.answers if answer.outcome is None]:
                    await self._answer(asked)
            finally:
                gathering.tell()

    async def _answer(self, asked: list[Answer]) -> None:
        try:
            permits = await self._permits.reserve([answer.request for answer in asked])
        except Exception as error:
            if isinstance(error, InvalidInput) and len(asked) > 1:  # it is the mistake of one of them
                for answer in asked:
                    await self._answer([answer])
                return
            for answer in asked:
                if answer.outcome is None:
                    answer.outcome = _as_decision(error, answer.request)
            return
        for answer, permit in zip(asked, permits, strict=True):
            if answer.outcome is None:
                answer.outcome = permit


def _requests(
    tokens: Sequence[tuple[str, str, float]],
    patience: timedelta,
    job_id: int,
    taken: Taken | None,
) -> list[PermitRequest]:
    """Return what a job asks for that has taken the `taken`."""
    wanted: list[PermitRequest] = []
    for scope, key, cost in tokens:
        take = 1 if taken is None else 1 + taken.times(scope, key)
        if wanted:
            take += sum((one.scope, one.key) == (scope, key) for one in wanted)
        wanted.append(PermitRequest(scope, key, cost, job_id, take, patience))
    return wanted


def _as_decision(error: Exception, request: PermitRequest) -> Exception:
    """Return what a handler hears. An outage is no mistake of the job: it is throttled, which counts no attempt."""
    if isinstance(error, StorageUnavailable) and not isinstance(error, StorageUnusable):
        return Throttled(RETRY, f"rate limit {request.scope!r} cannot be asked: {error}")
    return error

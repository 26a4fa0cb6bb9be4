"""Tokens of rate limits by key, for the handlers of this process.

What handlers ask for at one moment is one statement: while it is on its way, the next one gathers.

A token belongs to the job that it was granted to. A job that is no longer in hand and has not begun, or could not get all
the tokens that it asked for, keeps it in the database, where it finds it when it is claimed again, by whomever. No token that
a job may have used goes back to its bucket.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import Context as Variables
from dataclasses import dataclass, field
from datetime import timedelta
from weakref import WeakSet

import msgspec

from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.model.decision import AwaitsTurn
from forge_jobs.model.job import Claim
from forge_jobs.model.permit import AT_ONCE, Granted, Permit, PermitRequest, Taken
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.interface.permits import Permits
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.prepaid import Answer, Prepaid, Telling, as_decision, nothing

MOST_AT_ONCE = 1000  # requests of one statement
LONGEST_ANSWER = 2.0  # seconds for which outcomes wait to learn what jobs that have not begun were granted


@dataclass(slots=True)
class Gathering:
    """Requests of one statement."""

    answers: list[Answer] = field(default_factory=list)
    told: Telling = field(default_factory=Telling)

    def end(self) -> None:
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

    def drop_unasked(self) -> None:
        """What was not asked for yet is not asked for any more."""
        for answer in self.answers:
            if not answer.told.is_asked:
                answer.drop()


class KeyTokens:
    """Permits of one process."""

    def __init__(self, permits: Permits, telemetry: Telemetry) -> None:
        self._permits = permits
        self._telemetry = telemetry
        self._gathered: deque[Gathering | Prepaid] = deque()  # what is to be asked, in this order
        self._asking: asyncio.Task[None] | None = None
        self._is_closed = False
        self.advances: dict[int, Advance] = {}
        """What was asked for jobs that have not used it, by job."""
        self._prepaid = WeakSet[
            Prepaid
        ]()  # what is asked for many jobs at once, as long as one of them has not begun

    def take_ahead_for_all(
        self,
        scope: str,
        cost: float,
        claims: Sequence[Claim],
        keys: Sequence[str],
        told: Callable[[], None] = nothing,
    ) -> None:
        """As `take_ahead` for many jobs, for each of which `cost` tokens of the key at its place are asked for. `told()` is called
        when it is answered for all that have them now, or nobody will.
        """
        prepaid = Prepaid(scope, cost, [claim.job_id for claim in claims], keys, told)
        for claim in claims:
            claim.prepaid = prepaid
        self._prepaid.add(prepaid)
        self._gathered.append(prepaid)
        self._begin_asking()

    def take_ahead(self, job_id: int, tokens: Sequence[tuple[str, str, float]]) -> None:
        """The job, which was claimed and will soon begin, has its tokens asked for."""
        wanted = _requests(tokens, AT_ONCE, job_id, None)
        self.advances[job_id] = Advance(tokens, [self._ask_for(request) for request in wanted])

    async def pays(self, claim: Claim) -> bool:
        """As `has_paid`, as soon as what was asked for the job is answered."""
        if claim.prepaid is not None:
            await claim.prepaid.told.wait()
            if self.has_paid(claim):
                return True
            self.part(claim)
        if advance := self.advances.get(claim.job_id):
            await advance.answered()
        return self.has_paid(claim)

    def has_paid(self, claim: Claim) -> bool:
        """Whether the job, which begins now, has got all that was asked for it: then it needs to ask for nothing."""
        job_id = claim.job_id
        if (prepaid := claim.prepaid) is not None:
            if prepaid.spent is None or prepaid.is_void or job_id in prepaid.answers:
                return False
            claim.prepaid = None
            return True
        advance = self.advances.get(job_id)
        if advance is None:
            return False
        for answer in advance.answers:
            outcome = answer.outcome
            if type(outcome) is not Permit or outcome.wait > answer.request.patience:
                return False
        del self.advances[job_id]
        return True

    def unused(self, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Return those of jobs for which something was asked that they have not used."""
        advances = self.advances
        if not (advances or self._prepaid):
            return []
        return [
            verdict
            for verdict in verdicts
            if (claim := verdict.run.claim).prepaid is not None or (advances and claim.job_id in advances)
        ]

    async def keep(self, claims: Iterable[Claim]) -> None:
        """Of these jobs, which do not go on here, those that were granted tokens and have not used them find them when they ask
        again; those that are not answered soon are none of them, since outcomes wait for this. For those for which nobody has
        asked the database yet, nobody will.

        May be called again, until they are forgotten. Raises StorageUnavailable.
        """
        granted: list[Granted] = []
        left: list[Advance] = []
        for claim in claims:
            self.part(claim)
            if advance := self.advances.get(claim.job_id):
                advance.drop_unasked()
                left.append(advance)
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_ANSWER):
                for advance in left:
                    await advance.answered()
        for advance in left:
            granted += advance.granted()
        if granted:
            await self._permits.keep(granted)

    def forget(self, claims: Iterable[Claim]) -> None:
        """These jobs are no longer this process's."""
        for claim in claims:
            if (prepaid := claim.prepaid) is not None:
                prepaid.gone.add(claim.job_id)
                claim.prepaid = None
            if advance := self.advances.pop(claim.job_id, None):
                advance.drop()

    def part(self, claim: Claim) -> None:
        """What was asked for the job and others is the job's own from now on."""
        prepaid: Prepaid | None = claim.prepaid
        if prepaid is not None:
            claim.prepaid = None
            answer = prepaid.answer(claim.job_id)
            asked = answer.request
            self.advances[claim.job_id] = Advance(
                [(asked.scope, asked.key, asked.cost)], [self._anew(answer) if prepaid.is_void else answer]
            )

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
                raise as_decision(error, granted[0][0].scope) from error

    def void(self, scope: str) -> None:
        """The buckets of the rate limit were emptied: for jobs that have not begun their tokens are asked for anew."""
        for prepaid in self._prepaid:
            prepaid.is_void |= prepaid.scope == scope
        for advance in self.advances.values():
            advance.answers = [
                self._anew(answer) if answer.request.scope == scope else answer for answer in advance.answers
            ]

    def _anew(self, answer: Answer) -> Answer:
        answer.drop()
        return self._ask_for(answer.request)

    def _ask_for(self, request: PermitRequest) -> Answer:
        last = self._gathering()
        answer = Answer(request, last.told)
        last.answers.append(answer)
        return answer

    def _gathering(self) -> Gathering:
        """Return the requests that are asked for last, of which there may be more."""
        last = self._gathered[-1] if self._gathered else None
        if not isinstance(last, Gathering) or len(last.answers) >= MOST_AT_ONCE:
            last = Gathering()
            self._gathered.append(last)
            self._begin_asking()
        return last

    def _begin_asking(self) -> None:
        if self._asking is None or self._asking.done():
            # In no job's context: it asks for all of them.
            self._asking = OwnTask(self._ask(), self._telemetry, name="tokens of keys", context=Variables())
            self._asking.add_done_callback(self._has_asked, context=Variables())

    def _has_asked(self, task: "asyncio.Task[None]") -> None:
        """Whoever ended the task: what is not answered is asked for."""
        if self._gathered:
            self._begin_asking()

    async def close(self) -> None:
        """Nobody is answered any more."""
        self._is_closed = True
        for advance in self.advances.values():
            advance.drop()
        self.advances.clear()
        if self._asking is not None:
            self._asking.cancel()
        for gathering in self._gathered:
            gathering.end()
        self._gathered.clear()

    async def _ask(self) -> None:
        while self._gathered:
            gathering = self._gathered.popleft()
            try:
                if isinstance(gathering, Prepaid):
                    await self._spend(gathering)
                elif asked := [answer for answer in gathering.answers if answer.outcome is None]:
                    gathering.told.is_asked = True
                    await self._answer(asked)
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and not self._is_closed:
                    self._gathered.appendleft(gathering)  # somebody cancels whatever tasks there are
                else:
                    gathering.end()
                raise
            gathering.end()

    async def _spend(self, prepaid: Prepaid) -> None:
        """The jobs that cannot have their tokens now are promised them by `reserve`, or hear why not."""
        jobs, keys = prepaid.wanted()
        if prepaid.is_void or not jobs:
            return
        prepaid.told.is_asked = True
        try:
            spent = await self._permits.spend(prepaid.scope, prepaid.cost, keys, jobs)
        except InvalidInput:  # it is the mistake of one of them
            self._ask_next(prepaid, jobs)
            return
        except Exception as error:
            prepaid.has_failed(error)
            return
        prepaid.has_heard(jobs, spent)
        if None in spent.full_at:
            have_none = [
                job_id for job_id, full_at in zip(jobs, spent.full_at, strict=True) if full_at is None
            ]
            self._ask_next(prepaid, have_none)

    def _ask_next(self, prepaid: Prepaid, jobs: Sequence[int]) -> None:
        """These jobs are promised their tokens before any that were claimed after them have theirs."""
        answers = [prepaid.answer(job_id) for job_id in jobs if job_id not in prepaid.gone]
        asked = [answer for answer in answers if answer.outcome is None]
        for start in reversed(range(0, len(asked), MOST_AT_ONCE)):
            gathering = Gathering(asked[start : start + MOST_AT_ONCE])
            for answer in gathering.answers:
                answer.told = gathering.told
            self._gathered.appendleft(gathering)

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
                    answer.outcome = as_decision(error, answer.request.scope)
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
    if taken is None and len(tokens) == 1:
        [(scope, key, cost)] = tokens
        return [PermitRequest(scope, key, cost, job_id, 1, patience)]
    wanted: list[PermitRequest] = []
    for scope, key, cost in tokens:
        take = 1 if taken is None else 1 + taken.times(scope, key)
        if wanted:
            take += sum((one.scope, one.key) == (scope, key) for one in wanted)
        wanted.append(PermitRequest(scope, key, cost, job_id, take, patience))
    return wanted

"""Prepaid jobs: those of one claim that pay the same limit by key, whose tokens are spent with one call and are no object for each."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from forge_jobs.errors import StorageUnavailable, StorageUnusable
from forge_jobs.model.decision import Throttled
from forge_jobs.model.permit import AT_ONCE, Permit, PermitRequest, Spent

RETRY = 1.0  # seconds, when the database cannot be asked


class Telling(asyncio.Event):
    """Set as soon as requests that are one call have their answers, or nobody will answer."""

    is_asked = False  # the database was asked, and may have spent something


class Answer(msgspec.Struct, eq=False):
    """What becomes of one request. It is told together with those of other requests."""

    request: PermitRequest
    told: Telling
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


@dataclass(eq=False)
class Prepaid:
    """Jobs for each of which `cost` tokens of a key are asked for. Their claims know it until they begin, or part from it."""

    scope: str
    cost: float
    jobs: Sequence[int]
    keys: Sequence[str]  # at the places of their jobs
    then: Callable[[], None]  # is called when this is answered
    told: Telling = field(default_factory=Telling)
    spent: Spent | None = None  # at the places of the jobs; None: nothing, or nobody knows yet
    error: Exception | None = None  # with which the database refused to say
    is_void: bool = False  # what is granted may not be used: the jobs ask anew
    gone: set[int] = field(default_factory=set)  # jobs that want to hear nothing
    answers: dict[int, Answer] = field(default_factory=dict)  # by job, of those that parted from it

    def answer(self, job_id: int) -> Answer:
        """Return what becomes of the request for this job, which parts from this."""
        if (answer := self.answers.get(job_id)) is None:
            request = PermitRequest(self.scope, self.keys[self._places[job_id]], self.cost, job_id)
            answer = self.answers[job_id] = Answer(request, self.told)
            self._tell(answer)
            if self.told.is_set():
                answer.drop()
        return answer

    def wanted(self) -> tuple[Sequence[int], Sequence[str]]:
        """Return the jobs that want to hear it, and their keys."""
        unwanted = self.gone.union(
            [job_id for job_id, answer in self.answers.items() if answer.outcome is not None]
        )
        if not unwanted:
            return self.jobs, self.keys
        wanted = [place for place, job_id in enumerate(self.jobs) if job_id not in unwanted]
        return [self.jobs[place] for place in wanted], [self.keys[place] for place in wanted]

    def has_heard(self, jobs: Sequence[int], spent: Spent) -> None:
        """This is what became of the requests for these jobs."""
        if len(jobs) < len(self.jobs):
            reached = dict(zip(jobs, spent.full_at, strict=True))
            spent = Spent(spent.at, [reached.get(job_id) for job_id in self.jobs])
        self.spent = spent
        self._tell(*self.answers.values())

    def has_failed(self, error: Exception) -> None:
        """The database has refused to say what becomes of the requests."""
        self.error = error
        self._tell(*self.answers.values())

    def end(self) -> None:
        """Who waits for an answer has it, or is told that there will be none, or where it comes."""
        for answer in self.answers.values():
            if answer.told is self.told:
                answer.drop()
        self.told.set()
        then, self.then = self.then, nothing  # which knows the claims, which know this
        then()

    def _tell(self, *answers: Answer) -> None:
        for answer in answers:
            if answer.outcome is not None:
                continue
            request = answer.request
            if self.error is not None:
                answer.outcome = as_decision(self.error, request.scope)
            elif (
                self.spent is not None
                and (full_at := self.spent.full_at[self._places[request.job_id]]) is not None
            ):
                answer.outcome = Permit(self.scope, request.key, self.cost, self.spent.at, AT_ONCE, full_at)

    @cached_property
    def _places(self) -> Mapping[int | None, int]:
        """Of the jobs; few ask."""
        return {job_id: place for place, job_id in enumerate(self.jobs)}


def nothing() -> None:
    """Nobody wants to be called."""


def as_decision(error: Exception, scope: str) -> Exception:
    """Return what a handler hears. An outage is no mistake of the job: it is throttled, which counts no attempt."""
    if isinstance(error, StorageUnavailable) and not isinstance(error, StorageUnusable):
        return Throttled(RETRY, f"rate limit {scope!r} cannot be asked: {error}")
    return error

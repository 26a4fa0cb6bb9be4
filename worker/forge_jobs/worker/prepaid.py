"""Prepaid jobs: those of one claim that pay the same limit by key, whose tokens are spent with one call and are no object for each."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgspec

from forge_jobs.model.permit import AT_ONCE, Permit, PermitRequest, Spent


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


@dataclass(eq=False)
class Prepaid:
    """Jobs for each of which `cost` tokens of a key are asked for."""

    scope: str
    cost: float
    keys: dict[int, str]  # by job
    then: Callable[[], None]  # is called when this is answered
    told: asyncio.Event = field(default_factory=asyncio.Event)
    spent: Spent | None = None  # of the `jobs`; None: nobody knows yet
    jobs: Sequence[int] = ()
    answers: dict[int, Answer] = field(default_factory=dict)  # by job, of those that somebody asked for

    def answer(self, job_id: int) -> Answer:
        """Return what becomes of the request for this job."""
        if (answer := self.answers.get(job_id)) is None:
            request = PermitRequest(self.scope, self.keys[job_id], self.cost, job_id)
            answer = self.answers[job_id] = Answer(request, self.told, self._permit(job_id))
        return answer

    def has_heard(self, jobs: Sequence[int], spent: Spent) -> None:
        """This is what became of the requests for these jobs."""
        self.jobs, self.spent = jobs, spent
        for job_id, answer in self.answers.items():
            if answer.outcome is None:
                answer.outcome = self._permit(job_id)

    def _permit(self, job_id: int) -> Permit | None:
        if self.spent is None or (full_at := self._full_at.get(job_id)) is None:
            return None
        return Permit(self.scope, self.keys[job_id], self.cost, self.spent.at, AT_ONCE, full_at)

    @cached_property
    def _full_at(self) -> Mapping[int, float | None]:
        """Of the buckets of the jobs that have paid; few jobs ask."""
        assert self.spent is not None
        return dict(zip(self.jobs, self.spent.full_at, strict=True))

"""The steps of a job, as one attempt comes to them: which are done, and which are to be done now."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from forge_jobs.errors import (
    ClaimLost,
    InvalidInput,
    StepsChanged,
    StorageBusy,
    StorageUnavailable,
    StorageUnusable,
)
from forge_jobs.model.decision import Asleep
from forge_jobs.model.job import Claim
from forge_jobs.model.links import PINNED, REPORTED, is_pinned
from forge_jobs.model.signal import NewWait
from forge_jobs.model.step import MOST_STEPS, JobStep, NewStep, StepSort
from forge_jobs.rules.words import waits_for
from forge_jobs.telemetry import events

if TYPE_CHECKING:
    from forge_jobs.forge import Forge

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries to keep a step

in_step: ContextVar[str | None] = ContextVar("in_step", default=None)
"""The name of the step whose function this is; None outside of steps."""


class _Place(NamedTuple):
    """Where a step comes, as `JobStep` has it."""

    number: int
    serial: int | None


class Journal:
    """What an attempt knows of the steps of its job.

    Steps have to be those of the attempts before, by their names. Those that the handler does one after the other also have to come
    in their order, by their serials. What runs beside them, in tasks of its own, comes in another order each time.
    """

    def __init__(self, claim: Claim, forge: "Forge") -> None:
        self._claim = claim
        self._forge = forge
        self._kept: dict[str, JobStep] | None = None  # by name; None: they were not read yet
        self._kept_in_turn: dict[int | None, JobStep] = {}  # by serial, those of the attempts before
        self._taken: set[int] = set()  # numbers of steps
        self._reading = asyncio.Lock()
        self._places: dict[str, _Place] = {}  # of the steps that this attempt came to, by name
        self._serials = 0  # how many of them have a serial
        self._running: dict[str, bool] = {}  # by name, whether no other step may run beside it
        self._beside: set[str] = set()  # names of those that run or ran beside the handler's own flow
        self._failed: set[str] = set()
        self._in_transaction: set[str] = (
            set()
        )  # kept in transactions of the caller's, which may be rolled back
        self._patches: dict[str, bool] = {}
        self._sleeps = 0  # those without a name
        self._left_by: Asleep | StepsChanged | None = None
        self._is_pinned = is_pinned(claim.links)  # for certain

    def begin(self, name: str, what: str, *, alone: bool = False, beside: bool = False) -> None:
        """The attempt comes to this step, by the method `what`. With `alone` no other may run beside it; with `beside` it runs
        in a task of its own.

        Raises InvalidInput, and once more what the handler is to end with.
        """
        self._check(name, what, alone)
        if name in self._patches or (name in self._places and not self._may_run_again(name)):
            raise ran_already(name)
        if name not in self._places and len(self._places) >= MOST_STEPS:
            raise InvalidInput(
                f"Job {self._claim.job_id} has {MOST_STEPS:,} steps, allowed are no more than that."
            )
        self._failed.discard(name)
        self._running[name] = alone
        if beside:
            self._beside.add(name)

    def over(self, name: str, *, failed: bool) -> None:
        """The step does not run any more. One that failed may be come to again."""
        del self._running[name]
        if failed:
            self._failed.add(name)

    def may_be_undone(self, name: str) -> bool:
        """Whether this attempt has kept the step in a transaction of the caller's."""
        return name in self._in_transaction

    async def kept(self, name: str, sort: StepSort, connection: Any = None) -> JobStep | None:
        """Return the step if it is done; None: it is to be done now. Raises StepsChanged, InvalidInput.

        `connection` is for one that may be undone.
        """
        if name in self._in_transaction:
            steps = await self._forge.storage.steps.of_job(self._claim.job_id, connection=connection)
            return next((step for step in steps if step.name == name), None)
        steps_by_name = await self._read()
        step = steps_by_name.get(name)
        if name not in self._places:
            self._place(name, sort, step)
        return step

    def _place(self, name: str, sort: StepSort, step: JobStep | None) -> None:
        """The attempt came to this step, which is done if there is a `step`. Raises StepsChanged when that cannot come here."""
        serial = self._serials + 1
        is_beside = name in self._beside or (step is not None and step.serial is None)
        there = None if is_beside else self._kept_in_turn.get(serial)
        if there is not None and (there.name, there.sort) != (name, sort):
            raise self._changed(f"{_done(there)}, and now {sort} {name!r} comes there")
        if step is not None and step.sort is not sort:
            raise self._changed(f"{_done(step)}, and now {sort} {name!r} comes there")
        if step is not None and there is None and not is_beside:
            raise self._changed(f"{_done(step)}, and now it comes as number {self._next_number()}")
        if step is not None:
            self._places[name] = _Place(step.number, step.serial)
        else:
            self._places[name] = _Place(self._next_number(), None if is_beside else serial)
            self._taken.add(self._places[name].number)
        if self._places[name].serial is not None:
            self._serials = serial

    def _next_number(self) -> int:
        number = len(self._places) + 1
        while number in self._taken:
            number += 1
        return number

    async def keep(
        self,
        name: str,
        sort: StepSort = StepSort.STEP,
        *,
        result: bytes | None = None,
        sleep: float | None = None,
        connection: Any = None,
    ) -> JobStep:
        """The step is done, as `Steps.add` says; return it as it is kept. Raises ClaimLost.

        An outage of the database is waited for, unless there is a `connection`.
        """
        place = self._places[name]
        return await self._add(NewStep(place.number, name, sort, result, sleep, place.serial), connection)

    async def wait(
        self, name: str, signals: tuple[str, ...], for_job: int | None, timeout: float | None
    ) -> JobStep:
        """The attempt waits, as `Signals.wait` says; return the step as it is kept. Raises ClaimLost, and StepsChanged when it waited for something else."""
        await self._pin(None)
        place = self._places[name]
        new = NewWait(place.number, name, signals, for_job, timeout, place.serial)
        wait = self._forge.storage.signals.wait
        kept = await self._until_answered(lambda: wait(self._claim, new), "waiting for a signal")
        if kept is None:
            raise ClaimLost(self._claim.job_id, self._claim.attempt)
        if (kept.signals, kept.for_job) != (signals, for_job):
            now = waits_for(replace(kept, signals=signals, for_job=for_job))
            raise self._changed(f"{_done(kept)} for {waits_for(kept)}, and now it is for {now}")
        (await self._read())[name] = kept
        return kept

    async def _pin(self, connection: Any) -> None:
        """The job goes on with this version of the program only, if its handler says so. Raises ClaimLost."""
        handler = self._forge.handlers.by_kind.get(self._claim.kind)
        if self._is_pinned or handler is None or not handler.is_pinned:
            return
        add = self._forge.storage.pins.add
        # Before it is known: so its end is written with that of the pin, also when no answer comes any more.
        self._claim.links = (self._claim.links or 0) | PINNED
        if connection is None:
            is_held = await self._until_answered(lambda: add(self._claim), "keeping a step")
        else:
            is_held = await add(self._claim, connection=connection)
        if not is_held:
            raise ClaimLost(self._claim.job_id, self._claim.attempt)
        self._is_pinned = connection is None  # else it may be rolled back

    async def _add(self, step: NewStep, connection: Any = None) -> JobStep:
        await self._pin(connection)
        add = self._forge.storage.steps.add
        if connection is None:
            kept = await self._until_answered(lambda: add(self._claim, step), "keeping a step")
        else:
            kept = await add(self._claim, step, connection=connection)
        if kept is None:
            raise ClaimLost(self._claim.job_id, self._claim.attempt)
        if connection is not None:
            self._in_transaction.add(step.name)
        else:
            self._in_transaction.discard(step.name)
            (await self._read())[step.name] = kept
        return kept

    async def patched(self, name: str) -> bool:
        """Return whether the job comes to this change of the code; False: it was past that place before."""
        if name in self._patches:
            return self._patches[name]
        self._check(name, "ctx.patched", True)
        if name in self._places:
            raise ran_already(name)
        self._running[name] = True
        try:
            steps = await self._read()
            step = steps.get(name)
            if step is not None and step.sort is not StepSort.PATCH:
                raise self._changed(f"{_done(step)}, and now that is a patch")
            if step is None and self._left_out(steps) is None:
                step = await self._add(NewStep(len(self._places) + 1, name, StepSort.PATCH))
            self._patches[name] = step is not None
        finally:
            del self._running[name]
        return self._patches[name]

    def sleep_name(self) -> str:
        """Return the name of the next sleep that is given none."""
        self._sleeps += 1
        return f"sleep {self._sleeps}"

    def asleep(self, step: JobStep) -> Asleep:
        """Return what the handler is to end with until this sleep or wait is over."""
        self._left_by = Asleep(None if step.sort is StepSort.WAIT else step.until, step.name)
        return self._left_by

    async def unheeded(self, *, may_leave_out: bool = False) -> Asleep | StepsChanged | None:
        """Return what a handler that has returned should have ended with: a sleep, or that its code has changed, unless it
        `may_leave_out` steps that are done.
        """
        if self._left_by is not None or may_leave_out:
            return self._left_by
        left_out = self._left_out(await self._read())
        if left_out is None:
            return None
        return self._changed(f"{_done(left_out)}, and now its handler ended without it")

    def _left_out(self, steps: Mapping[str, JobStep]) -> JobStep | None:
        """Return one of the steps that are done and that this attempt has not come to."""
        return next(
            (
                step
                for step in steps.values()
                if step.name not in self._places and step.sort is not StepSort.PATCH
            ),
            None,
        )

    def _may_run_again(self, name: str) -> bool:
        return name in self._failed or name in self._in_transaction

    def _check(self, name: str, what: str, alone: bool) -> None:
        """Raise InvalidInput when this may not be called now, and once more what the handler is to end with."""
        if self._left_by is not None:
            raise self._left_by
        if (outer := in_step.get()) is not None:
            raise InvalidInput(f"{what} is called in step {outer!r}, allowed is after it.")
        for other, is_alone in self._running.items():
            if alone or is_alone or other == name:
                raise InvalidInput(f"{what} is called while step {other!r} runs, allowed is after it.")

    def _changed(self, what: str) -> StepsChanged:
        self._left_by = StepsChanged(self._claim.job_id, what)
        return self._left_by

    async def _read(self) -> dict[str, JobStep]:
        """Return the steps that are done, which came with the claim or are read once. A job whose `links` do not say that it has any is not asked about."""
        async with self._reading:
            if self._kept is None:
                steps, self._claim.steps = self._claim.steps, None  # later they are not all any more
                if steps is None and self._claim.links is not None and self._claim.links & REPORTED:
                    of_job = self._forge.storage.steps.of_job
                    steps = await self._until_answered(lambda: of_job(self._claim.job_id), "reading steps")
                steps = steps or []
                self._kept = {step.name: step for step in steps}
                done = [step for step in steps if step.sort is not StepSort.PATCH]
                self._kept_in_turn = {step.serial: step for step in done if step.serial is not None}
                self._taken = {step.number for step in done}
        return self._kept

    async def _until_answered(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """Return what `call` returns, however long the database is away: a step that is done would be done again."""
        since, pause, telemetry = time.monotonic(), FIRST_PAUSE, self._forge.telemetry
        is_away = False
        while True:
            try:
                answer = await call()
            except (StorageBusy, StorageUnusable):  # the handler itself may be what is waited for
                raise
            except StorageUnavailable as error:
                is_away = True
                telemetry.emit(events.DatabaseLost(what, str(error), pause))
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                if is_away:
                    telemetry.emit(events.DatabaseBack(what, time.monotonic() - since))
                return answer


def ran_already(name: str) -> InvalidInput:
    """Return the error of a second step with one name."""
    return InvalidInput(
        f"Step {name!r} ran already in this attempt, allowed is each name once; "
        f"in a loop, number it, as in {f'{name} 2'!r}."
    )


def _done(step: JobStep) -> str:
    return f"attempt {step.attempt} did {step.sort} {step.name!r} as number {step.number}"

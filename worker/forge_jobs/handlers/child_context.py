"""The context of a handler that runs in a process of its own."""

import asyncio
from collections.abc import Awaitable, Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers import reporting
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.steps import Step, journal_of
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.model.job import Claim
from forge_jobs.model.links import REPORTED
from forge_jobs.model.signal import NewWait
from forge_jobs.model.step import JobStep, NewStep
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.forge import Forge

ASKED_FOR = frozenset(
    (
        "ctx.enqueue",
        "ctx.save",
        "ctx.save_for_key",
        "ctx.state_of_key",
        "ctx.set_result",
        "ctx.step",
        "ctx.sleep",
        "ctx.patched",
        "ctx.wait_for",
        "ctx.wait_for_any",
        "ctx.wait_for_job",
    )
)
"""What the worker does in place of the process."""

ENQUEUE = "enqueue"
"""What the worker does by its own Forge, with all its plugins."""

PROGRESS = "progress"
"""What it is asked for and gives no answer to: nobody waits for it."""


class Ask(Protocol):
    """Has the worker do something for the job, and returns what it answers. Raises what it raises."""

    def __call__(self, what: str, *values: Any) -> Any:
        """`what` names a method of the storage, whose claim or job the worker adds."""


class ChildContext(Context):
    """The context in a process of its own, which has no connection to the database: its worker writes what is said of the job.

    What needs more than that is refused.
    """

    __slots__ = ("_ask",)

    def __init__(self, claim: Claim, queue: str, forge: "Forge", ask: Ask) -> None:
        self.claim = claim
        self._cancelled = False
        self.queue = queue
        self._ask = ask
        self.forge = _ChildForge(forge, ask)  # type: ignore[assignment]
        self.completion = None
        self.journal = None
        self.has_reported = claim.links is not None and bool(claim.links & REPORTED)
        self.is_gathered = self.may_leave_out = False
        self.task_id = 0  # a loop of the handler's own has tasks of its own only

    @property
    def rate_limit(self) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.rate_limit")

    @property
    def flow(self) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.flow")

    def enqueue(self, kind: str, payload: Payload | None = None, **options: Any) -> Any:
        """See Context; the worker enqueues. Raises InvalidInput with a connection."""
        return self.answer(
            self._enqueued_by_worker(kind, payload, options), "ctx.enqueue", options.get("connection")
        )

    async def _enqueued_by_worker(self, kind: str, payload: Payload | None, options: dict[str, Any]) -> Any:
        return self._ask(ENQUEUE, kind, payload, options)

    def complete(self, connection: Any, *, result: Any = None) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.complete")

    def reschedule(
        self, connection: Any, *, at: datetime | None = None, after: timedelta | float | None = None
    ) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.reschedule")

    def progress(self, share: float, note: str | None = None) -> Awaitable[None]:
        """See Context."""
        report = reporting.progress_report(self, share, note)
        self._ask(PROGRESS, report.share, report.note)
        return reporting.TOLD

    def step(self, step: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See Context. Raises InvalidInput for one with a connection."""
        if isinstance(step, Step) and step.connection is not None:
            raise _refused("The connection of a step")
        return super().step(step, function, *args, **kwargs)

    def answer(self, work: Coroutine[Any, Any, Any], what: str, connection: Any = None) -> Any:
        """Return what `work` comes to, if the worker does it; in a loop, `work`, which may be of a Forge that the program opens there.

        Raises InvalidInput for anything else.
        """
        is_asked_for = what in ASKED_FOR
        if is_asked_for and connection is not None:
            work.close()
            raise _refused(f"The connection of {what}")
        if asyncio._get_running_loop() is not None:
            return work
        if is_asked_for:
            return at_once(work)
        work.close()
        raise _refused(what)

    def require_heeded(self) -> None:
        """Raise what the handler, which has returned, should have ended with: a sleep, or that its code has changed."""
        if self.has_reported:
            error = at_once(journal_of(self, "ctx.step").unheeded())
            if error is not None:
                raise error


class _ChildForge:
    """The program's Forge, whose database is asked for by the worker."""

    def __init__(self, forge: "Forge", ask: Ask) -> None:
        self._forge = forge
        self.storage = _ChildStorage(ask)
        self.telemetry = Telemetry()
        self.handlers = _ChildHandlers()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._forge, name)


class _ChildHandlers:
    """The handlers of the worker: it says by its answer to `pins.add` whether jobs of the kind are pinned."""

    is_pinned = True

    @property
    def by_kind(self) -> "_ChildHandlers":
        return self

    def get(self, kind: str) -> "_ChildHandlers":
        return self


class _ChildStorage:
    """What a handler may use of the storage."""

    def __init__(self, ask: Ask) -> None:
        self.steps, self.saved_states = _ChildSteps(ask), _ChildSavedStates(ask)
        self.signals, self.pins = _ChildSignals(ask), _ChildPins(ask)


class _ChildSteps:
    """`Steps`, asked for."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def of_job(self, job_id: int, *, connection: Any = None) -> list[JobStep]:
        steps: list[JobStep] = self._ask("steps.of_job")
        return steps

    async def add(self, claim: Claim, step: NewStep, *, connection: Any = None) -> JobStep | None:
        kept: JobStep | None = self._ask("steps.add", step)
        return kept


class _ChildPins:
    """`Pins`, asked for."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def add(self, claim: Claim, *, connection: Any = None) -> bool:
        return bool(self._ask("pins.add"))


class _ChildSignals:
    """`Signals`, asked for."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def wait(self, claim: Claim, wait: NewWait) -> JobStep | None:
        kept: JobStep | None = self._ask("signals.wait", wait)
        return kept


class _ChildSavedStates:
    """`SavedStates`, asked for."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def save(self, claim: Claim, state: bytes, *, connection: Any = None) -> bool:
        return bool(self._ask("saved_states.save", state))

    async def set_result(self, claim: Claim, result: bytes | None, *, connection: Any = None) -> bool:
        return bool(self._ask("saved_states.set_result", result))

    async def save_for_key(self, claim: Claim, state: bytes | None, *, connection: Any = None) -> bool:
        return bool(self._ask("saved_states.save_for_key", state))

    async def of_key(self, claim: Claim) -> tuple[bytes, str] | None:
        found: tuple[bytes, str] | None = self._ask("saved_states.of_key")
        return found


def _refused(what: str) -> InvalidInput:
    return InvalidInput(
        f"{what} is used in a handler with executor='process', which has no connection to the database; "
        "allowed is an async handler, or a plain one in a thread."
    )

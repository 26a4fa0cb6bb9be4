"""What a handler in a process of its own asks its worker for: its job's state, steps and progress are written here."""

import pickle
from typing import Any

from forge_jobs.errors import InvalidInput, StorageBusy, StorageUnavailable, StorageUnusable
from forge_jobs.handlers.child_context import ENQUEUE, PROGRESS
from forge_jobs.handlers.context import Context
from forge_jobs.model.links import PINNED, is_pinned
from forge_jobs.storage.outage import Outage

THROUGH_OUTAGES = ("steps.of_job", "steps.add", "signals.wait", "pins.add")
"""What an outage of the database is waited for: a step that is done would be done again."""


class ChildQuestions:
    """Those of one call."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._is_pinned = is_pinned(context.claim.links)  # for certain
        self._outage = Outage("writing what a process says of its job", context.forge.telemetry)
        context.may_leave_out = True  # the process looks after that itself

    async def answered(self, what: str, values: tuple[Any, ...]) -> bytes | None:
        """Return the answer, pickled: whether there is one, and what it is, or the error. None: it needs none."""
        context = self._context
        if what == PROGRESS:
            context.progress(*values)
            return None
        try:
            return _pickled(True, await self._until_answered(what, values))
        except Exception as error:
            return _pickled(False, error)

    async def _until_answered(self, what: str, values: tuple[Any, ...]) -> Any:
        while True:
            try:
                answer = await self._asked(what, values)
            except (StorageBusy, StorageUnusable):  # the handler itself may be what is waited for
                raise
            except StorageUnavailable as error:
                if what not in THROUGH_OUTAGES:
                    raise
                await self._outage.wait(error)
            else:
                self._outage.over()
                return answer

    async def _pinned(self) -> bool:
        """Whether the job is this worker's still, and pinned to its version if its handler says so."""
        claim, forge = self._context.claim, self._context.forge
        handler = forge.handlers.by_kind.get(claim.kind)
        if handler is None or not handler.is_pinned or self._is_pinned:
            return True
        claim.links = (claim.links or 0) | PINNED  # before it is known, as in a `Journal`
        self._is_pinned = await forge.storage.pins.add(claim)
        return self._is_pinned

    async def _asked(self, what: str, values: tuple[Any, ...]) -> Any:
        storage, claim = self._context.forge.storage, self._context.claim
        match what:
            case _ if what == ENQUEUE:
                kind, payload, options = values
                return await self._context.enqueue(kind, payload, **options)
            case "steps.of_job":
                return await storage.steps.of_job(claim.job_id)
            case "steps.add":
                return await storage.steps.add(claim, *values)
            case "pins.add":
                return await self._pinned()
            case "signals.wait":
                return await storage.signals.wait(claim, *values)
            case "saved_states.save":
                return await storage.saved_states.save(claim, *values)
            case "saved_states.set_result":
                return await storage.saved_states.set_result(claim, *values)
            case "saved_states.save_for_key":
                return await storage.saved_states.save_for_key(claim, *values)
            case "saved_states.of_key":
                return await storage.saved_states.of_key(claim)
        raise InvalidInput(f"A process asks for {what!r}, which no worker of this release does.")


def _pickled(is_answer: bool, value: Any) -> bytes:
    try:
        message = pickle.dumps((is_answer, value))
        pickle.loads(message)  # an error may be one that cannot be made again
    except Exception:
        message = pickle.dumps((False, InvalidInput(str(value))))
    return message

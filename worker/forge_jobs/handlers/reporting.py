"""What a handler says of its job while it runs: its state for the next attempt, its result, and how far it is."""

from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol

from forge_jobs.codecs.bound import kept_for_key, result_of, state_of
from forge_jobs.codecs.plain import encode
from forge_jobs.errors import ClaimLost, InvalidInput
from forge_jobs.handlers.received import received
from forge_jobs.model.error_text import kept
from forge_jobs.model.progress import ProgressReport
from forge_jobs.rules import names
from forge_jobs.rules.returned import LONGEST_RESULT

if TYPE_CHECKING:
    from forge_jobs.handlers.context import Context

LARGEST_STATE = 256 * 1024  # bytes
LONGEST_NOTE = 500  # characters


class ProcessReports(Protocol):
    """The progress that handlers report, as a worker's process has it."""

    def add(self, report: ProgressReport) -> None:
        """The report will be written; also called from other threads."""


class Told:
    """What is done already. It may be awaited or not."""

    def __await__(self) -> Generator[Any, Any, None]:
        return
        yield


TOLD = Told()


async def save(context: "Context", state: Any, connection: Any) -> None:
    """The job has this state. Raises InvalidPayload, ClaimLost, InvalidInput."""
    claim, states = context.claim, context.forge.storage.saved_states
    encoded = encode(state, claim.codec, limit=LARGEST_STATE, what="state", of=state_of(claim.job_id))
    require_held(context, "ctx.save")
    await _written(context, states.save(claim, encoded, connection=connection))
    if connection is None:  # nobody here learns whether the transaction of the handler is kept
        claim.state = encoded


async def save_for_key(context: "Context", state: Any, connection: Any) -> None:
    """The key of the job has this state; None: none any more. Raises InvalidPayload, ClaimLost, InvalidInput."""
    claim = context.claim
    of = kept_for_key(claim.kind, _required_key(context, "ctx.save_for_key"))
    encoded = None if state is None else encode(state, claim.codec, limit=LARGEST_STATE, what="state", of=of)
    require_held(context, "ctx.save_for_key")
    states = context.forge.storage.saved_states
    await _written(context, states.save_for_key(claim, encoded, connection=connection))


async def state_of_key(context: "Context") -> Any:
    """Return the state that was saved for the key of the job last; None: none. Raises InvalidInput."""
    of = kept_for_key(context.claim.kind, _required_key(context, "ctx.state_of_key"))
    found = await context.forge.storage.saved_states.of_key(context.claim)
    return None if found is None else received(*found, "state", of=of)


async def set_result(context: "Context", result: Any, connection: Any) -> None:
    """The job has this result, unless its handler returns one. Raises InvalidPayload, ClaimLost, InvalidInput."""
    claim, states = context.claim, context.forge.storage.saved_states
    encoded = None
    if result is not None:
        encoded = encode(result, claim.codec, limit=LONGEST_RESULT, what="result", of=result_of(claim.job_id))
    require_held(context, "ctx.set_result")
    await _written(context, states.set_result(claim, encoded, connection=connection))


def progress_report(context: "Context", share: object, note: object) -> ProgressReport:
    """Return what the handler reports; a long note is shortened. Raises InvalidInput."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise InvalidInput(f"The progress is {names.shown(share)}, allowed is a number from 0 to 1.")
    if note is not None and not isinstance(note, str):
        raise InvalidInput(f"The note of the progress is {names.shown(note)}, allowed is a text.")
    return ProgressReport(context.claim, float(share), None if note is None else kept(note[:LONGEST_NOTE]))


def _required_key(context: "Context", what: str) -> str:
    key = context.key
    if key is None:
        raise InvalidInput(
            f"{what} is called in job {context.job_id}, which has no key, allowed is one with a key."
        )
    return key


def require_held(context: "Context", what: str) -> None:
    """Raise InvalidInput when the handler has let its job go: a transaction that it has not ended holds the job."""
    if context.completion is not None:
        raise InvalidInput(
            f"{what} is called after job {context.job_id} was completed or rescheduled by this attempt, "
            "allowed is before that."
        )


async def _written(context: "Context", write: Coroutine[Any, Any, bool]) -> None:
    if not await write:
        raise ClaimLost(context.job_id, context.attempt)

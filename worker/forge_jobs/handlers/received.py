"""What a handler gets besides its arguments: its state, results of steps and of other jobs, and values of signals."""

from typing import Any

from forge_jobs.codecs.plain import decode
from forge_jobs.handlers.arguments import fitted
from forge_jobs.rules.redaction import hide


def received(encoded: bytes | None, codec: str, what: str, wanted: Any = None, *, of: str) -> Any:
    """Return what `encoded` says, which is `what` in errors, as an object of the type `wanted` unless that is None; it was
    written as `of`.

    Errors of the job show of it no more than of its arguments. Raises InvalidPayload, UnfitPayload, MissingCodec.
    """
    value = None if encoded is None else decode(encoded, codec, what=what, of=of)
    hide(value)
    return value if wanted is None else fitted(value, wanted, what)

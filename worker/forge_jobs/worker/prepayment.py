"""Prepayment: the tokens of keys that jobs need to begin are taken as soon as the jobs are claimed, in one statement for all.

A job that is claimed with many others would otherwise ask when it begins, with the few that begin in that moment.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args

import msgspec

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.key_limit import KeyLimit
from forge_jobs.model.job import Claim
from forge_jobs.worker.tokens import LeasedTokens

PLAIN = Any, str, int, NoneType


class Prepayment:
    """Of one worker. Of limits that need code of the program to tell a key or a cost it takes nothing: that runs in the job.
    Neither where an argument may look different in the payload: it would pay for another key.
    """

    def __init__(self, handlers: Mapping[str, Handler[Any, Any]], tokens: LeasedTokens) -> None:
        self._tokens = tokens
        self._prices = {
            kind: _Price(handler.limits, handler.arguments.defaults)
            for kind, handler in handlers.items()
            if handler.limits and all(_is_plain(limit, handler.arguments.hints) for limit in handler.limits)
        }

    def pay(self, claims: Sequence[Claim]) -> None:
        """The tokens of these jobs, which are about to wait in the hand, are asked for."""
        if not self._prices:
            return
        for claim in claims:
            price = self._prices.get(claim.kind)
            if price is not None and (tokens := price.of(claim)):
                self._tokens.take_ahead(claim.job_id, tokens)


def _is_plain(limit: KeyLimit, hints: Mapping[str, Any]) -> bool:
    if not limit.is_plain or not isinstance(limit.by, str):
        return False
    hint = hints[limit.by]
    return all(part in PLAIN for part in get_args(hint) or (hint,))


class _Price:
    """What jobs of one kind pay. It reads the arguments that are keys, and no others."""

    def __init__(self, limits: Sequence[KeyLimit], defaults: Mapping[str, Any]) -> None:
        by = [(limit, limit.by) for limit in limits if isinstance(limit.by, str)]
        self._parts = [(limit, name, defaults.get(name)) for limit, name in by]
        fields: list[Any] = [(name, Any, msgspec.UNSET) for name in dict.fromkeys(name for _, name in by)]
        keys = msgspec.defstruct("Keys", fields, gc=False)
        self._decoders: Mapping[str, Any] = {
            "json": msgspec.json.Decoder(keys).decode,
            "msgpack": msgspec.msgpack.Decoder(keys).decode,
        }

    def of(self, claim: Claim) -> list[tuple[str, str, float]]:
        """Return the tokens (scope, key, cost); none where they cannot be told, which the job itself will say."""
        decode = self._decoders.get(claim.codec)
        if (
            decode is None or claim.payload is None or claim.node is not None
        ):  # a node gets more than its payload
            return []
        try:
            read = decode(claim.payload)
            return [
                limit.tokens_for(default if (value := getattr(read, name)) is msgspec.UNSET else value)
                for limit, name, default in self._parts
            ]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidInput):
            return []

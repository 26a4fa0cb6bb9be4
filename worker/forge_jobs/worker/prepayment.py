"""Prepayment: the tokens of keys that jobs need to begin are taken as soon as the jobs are claimed, in one statement for all.

A job that is claimed with many others would otherwise ask when it begins, with the few that begin in that moment.
"""

from collections.abc import Collection, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin

import msgspec

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.key_limit import KeyLimit
from forge_jobs.model.job import Claim
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.prepaid import nothing
from forge_jobs.worker.served_queue import ServedQueue
from forge_jobs.worker.tokens import LeasedTokens

TOGETHER = 10  # jobs that are worth a call of their own
UNREADABLE = msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidInput
MOST = 10**18
PLAIN = Any, str, int, NoneType
SCALARS = (*PLAIN, bool, float)
SMALL = 1000  # bytes of a payload that is worth reading whole for its key, so that it is read once


class Prepayment:
    """Of one worker. Of limits that need code of the program to tell a key or a cost it takes nothing: that runs in the job.
    Neither where an argument may look different in the payload: it would pay for another key.
    """

    def __init__(self, handlers: Mapping[str, Handler[Any, Any]], tokens: LeasedTokens, hand: Hand) -> None:
        self._tokens, self._hand = tokens, hand
        self._prices = {
            kind: _Price(handler.limits, handler.arguments)
            for kind, handler in handlers.items()
            if handler.limits and all(_tells(limit, handler.arguments.hints) for limit in handler.limits)
        }
        if self._prices:
            hand.allow_time()

    def add(self, queue: ServedQueue, claims: Sequence[Claim]) -> Sequence[Claim]:
        """These jobs are in hand and will be run, but for those for which no slot is left; return which will be. The tokens that
        they need are asked for, and those for which many are asked together wait for a runner once they have heard.
        """
        if not self._prices:
            return self._hand.add(queue, claims)
        if self._hand.extra.kinds:  # which have a slot is known when they stand in line
            claims = self._hand.add(queue, claims)
            self._pay(claims)
            return claims
        held_up = self._pay(claims, queue)
        if len(held_up) < len(claims):
            waits = {claim.job_id for claim in held_up}
            in_line = [claim for claim in claims if claim.job_id not in waits] if waits else claims
            self._hand.add(queue, in_line)
        return claims

    def _pay(self, claims: Sequence[Claim], held_up_of: ServedQueue | None = None) -> Sequence[Claim]:
        """Ask for the tokens; return which jobs are held up, if there is a queue of which they may be."""
        held_up: Sequence[Claim] = ()
        kinds = dict.fromkeys([claim.kind for claim in claims])
        for kind in kinds:
            if (price := self._prices.get(kind)) is None:
                continue
            its = claims if len(kinds) == 1 else [claim for claim in claims if claim.kind == kind]
            more = self._pay_for(price, kind, its, held_up_of)
            held_up = [*held_up, *more] if held_up else more
        return held_up

    def _pay_for(
        self, price: "_Price", kind: str, its: Sequence[Claim], held_up_of: ServedQueue | None
    ) -> Sequence[Claim]:
        payers, keys = ((), ()) if price.only is None else price.keys_of(its)
        if price.only is not None and len(keys) >= TOGETHER:
            told = nothing if held_up_of is None else self._hand.hold_up(held_up_of, payers)
            self._tokens.take_ahead_for_all(*price.only, payers, keys, told)
            return () if held_up_of is None else payers
        for claim in its:
            if tokens := price.of(claim):
                self._tokens.take_ahead(claim.job_id, tokens)
        if held_up_of is not None and self._hand.holds_up_behind(held_up_of, kind, its):
            return its
        return ()


def _tells(limit: KeyLimit, hints: Mapping[str, Any]) -> bool:
    """Whether the payload says the key as the handler sees it."""
    return limit.is_plain and isinstance(limit.by, str) and _is_one_of(PLAIN, hints[limit.by])


def _is_one_of(types: Collection[Any], hint: Any) -> bool:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return all(part in types for part in parts)


class _Price:
    """What jobs of one kind pay. Of their arguments it reads the keys; of a small payload all, for the job, where that runs no code
    of the program.
    """

    def __init__(self, limits: Sequence[KeyLimit], arguments: Arguments) -> None:
        by = [(limit, limit.by) for limit in limits if isinstance(limit.by, str)]
        fields = {name: f"key_{number}" for number, name in enumerate(dict.fromkeys(name for _, name in by))}
        self._parts = [(limit, fields[name], arguments.defaults.get(name)) for limit, name in by]
        # Reading them runs no code of the program.
        reads_all = all(_is_one_of(SCALARS, hint) for hint in arguments.hints.values())
        self._readers = arguments.readers if reads_all and not arguments.sealed_only else {}
        keys = msgspec.defstruct(
            "Keys",
            [(field, Any, msgspec.UNSET) for field in fields.values()],
            rename={field: name for name, field in fields.items()},
            gc=False,
        )
        self._decoders: Mapping[str, Any] = {
            "json": msgspec.json.Decoder(keys).decode,
            "msgpack": msgspec.msgpack.Decoder(keys).decode,
        }
        only = limits[0] if len(limits) == 1 else None
        self.only = None if only is None else (only.scope, cast(float, only.cost))
        """The scope and the cost, where there is one limit."""

    def of(self, claim: Claim) -> list[tuple[str, str, float]]:
        """Return the tokens (scope, key, cost); none where they cannot be told, which the job itself will say."""
        if (decode := self._decoder(claim)) is None:
            return []
        try:
            read = decode(claim.payload)
            return [
                limit.tokens_for(default if (value := getattr(read, field)) is msgspec.UNSET else value)
                for limit, field, default in self._parts
            ]
        except UNREADABLE:
            return []

    def keys_of(self, claims: Sequence[Claim]) -> tuple[Sequence[Claim], Sequence[str]]:
        """Return the jobs whose key for the only limit can be told, and the keys at their places."""
        [(limit, _, default)] = self._parts
        decoders, readers, name = self._decoders, self._readers, cast(str, limit.by)
        payers, keys = list[Claim](), list[str]()
        for claim in claims:
            payload, codec = claim.payload, claim.codec
            if payload is None or claim.node is not None or codec not in decoders:
                continue
            try:
                if codec in readers and len(payload) <= SMALL:
                    claim.read = read = readers[codec](payload)
                    key = getattr(read, name)
                else:
                    key = decoders[codec](payload).key_0
                if key is msgspec.UNSET:
                    key = default
                if type(key) is not int or not -MOST < key < MOST:  # such a number is a key as it is
                    key = limit.tokens_for(key)[1]
                keys.append(str(key))
                payers.append(claim)
            except UNREADABLE:
                continue
        return payers, keys

    def _decoder(self, claim: Claim) -> Any:
        """Return what reads the keys from the job's payload; None: nothing does."""
        if claim.payload is None or claim.node is not None:  # a node gets more than its payload
            return None
        return self._decoders.get(claim.codec)

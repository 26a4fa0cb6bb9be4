"""Handlers of lists: a function that does the items of one job in one call, each with an outcome of its own."""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from forge_jobs.codecs.plain import encode, innermost
from forge_jobs.errors import InvalidInput, InvalidPayload, UnfitPayload
from forge_jobs.handlers.arguments import Arguments, from_plain, unfit
from forge_jobs.handlers.context import Context, is_context
from forge_jobs.model.job import MAX_PAYLOAD
from forge_jobs.model.redaction import covers
from forge_jobs.rules.items import Items, judged, read
from forge_jobs.rules.merging import apart
from forge_jobs.rules.retries import Retries


class Lists:
    """Calls a function for the items of a job that are left; `retries` says what becomes of their errors.

    Raises InvalidInput for a function that takes no list.
    """

    def __init__(self, function: Callable[..., Any], kind: str, retries: Retries) -> None:
        self._retries = retries
        self._function = function
        parameters = list(inspect.signature(function).parameters.values())
        self._wants_context = bool(parameters) and is_context(parameters[0])
        named = parameters[1 if self._wants_context else 0 :]
        _require_one_list(named, kind)
        self.arguments = ItemArguments(function, kind, skip=len(parameters) - len(named))

    def called(self, *, is_plain: bool) -> Callable[..., Any]:
        """Return what an attempt calls, of a plain function or an async one."""
        return self.run_in_thread if is_plain else self.run

    async def run(self, ctx: Context, **arguments: Items) -> Any:
        """Return the results of all items of the job; see `rules.items.judged`. The function is not called for no items."""
        [items] = arguments.values()
        returned = await self._call(ctx, items) if items.stored else None
        return judged(items, returned, ctx.attempt, self._retries)

    def run_in_thread(self, ctx: Context, **arguments: Items) -> Any:
        """The same for a plain function, which runs in the thread that calls this."""
        [items] = arguments.values()
        returned = self._call(ctx, items) if items.stored else None
        return judged(items, returned, ctx.attempt, self._retries)

    def _call(self, ctx: Context, items: Items) -> Any:
        values = list(items.values)  # the handler may change it
        ctx.may_leave_out = True
        return self._function(ctx, values) if self._wants_context else self._function(values)


class ItemArguments(Arguments):
    """What a handler of lists takes: one argument, a list, which is the payload."""

    def __init__(self, function: Callable[..., Any], kind: str, *, skip: int) -> None:
        super().__init__(function, skip=skip)
        hint = self.hints[self.names[0]]
        if (typing.get_origin(hint) or hint) is not list:
            shown = hint.__qualname__ if isinstance(hint, type) else hint
            raise InvalidInput(
                f"Handler {kind!r} is a batch handler and its parameter {self.names[0]!r} is {shown}, "
                "allowed is a list, such as list[str]."
            )
        of = typing.get_args(hint)
        self._of: Any = of[0] if of else Any
        self._items: Mapping[str, Callable[[Any], Any]] = {
            "json": msgspec.json.Decoder(self._of, dec_hook=from_plain).decode,
            "msgpack": msgspec.msgpack.Decoder(self._of, dec_hook=from_plain).decode,
        }

    def decode(self, payload: bytes, codec: str = "json") -> dict[str, Any]:
        """Return the items that are left, as the only argument. Raises InvalidPayload, UnfitPayload as for other handlers."""
        self.require_sealed(codec)
        try:
            items = read(payload, codec, self.kind)
        except InvalidPayload:
            raise
        except Exception as error:
            raise self._refusal(payload, codec, error, hidden=self.hidden(codec)) from error
        inner = innermost(codec)
        for place, stored in zip(items.places, items.stored, strict=True):
            try:
                items.values.append(self._item(stored, inner))
            except Exception as error:  # the classes of items are a program's own code
                hidden = True if covers(redacted := self.hidden(codec), self.names[0]) else redacted
                why = unfit(error, hidden, is_value=True)
                raise UnfitPayload(
                    f"The payload of {self.function} is refused: item {place}: {why}."
                ) from error
        return {self.names[0]: items}

    def _item(self, stored: Any, codec: str) -> Any:
        decoder = self._items.get(codec)
        return msgspec.convert(stored, self._of, dec_hook=from_plain) if decoder is None else decoder(stored)

    def check(
        self, arguments: Any, codec: str = "json", *, limit: int = MAX_PAYLOAD, hidden: bool = False
    ) -> bytes:
        """Return the items, given as the argument or as a list, as a payload that `decode` has accepted. Raises InvalidPayload."""
        [name] = self.names
        if isinstance(arguments, Mapping):
            if list(arguments) != [name]:
                given = ", ".join(map(str, arguments)) or "nothing"
                raise UnfitPayload(
                    f"The payload of {self.function} is refused: given is {given}; it takes {name}, a list."
                )
            arguments = arguments[name]
        if not isinstance(arguments, list | tuple) or not arguments:
            given = "empty" if isinstance(arguments, list | tuple) else f"a {type(arguments).__name__}"
            raise UnfitPayload(
                f"The payload of {self.function} is refused: {name} is {given}, allowed is a list with at least one item."
            )
        payload = encode(apart(arguments), codec, limit=limit, of=self.kind, hidden=hidden)
        self.decode(payload, codec)
        return payload


def _require_one_list(parameters: Sequence[inspect.Parameter], kind: str) -> None:
    """Raise InvalidInput unless there is one parameter, which has an annotation and has to be given."""
    allowed = "allowed is one list of items, such as items: list[str], after ctx if it takes that"
    if len(parameters) != 1 or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        takes = ", ".join(str(parameter).partition(":")[0] for parameter in parameters) or "nothing"
        raise InvalidInput(f"Handler {kind!r} is a batch handler and takes {takes}, {allowed}.")
    [items] = parameters
    if items.annotation is items.empty:
        raise InvalidInput(
            f"Handler {kind!r} is a batch handler and its parameter {items.name!r} has no annotation, {allowed}."
        )
    if items.default is not items.empty:
        raise InvalidInput(
            f"Handler {kind!r} is a batch handler and its parameter {items.name!r} has a default, {allowed}."
        )

"""`forge-jobs limits`: token buckets for the whole cluster."""

from datetime import timedelta
from typing import Annotated, Any

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.errors import InvalidInput
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.rules.duration import in_words

group = CommandGroup(help="Look at rate limits, set, reset, empty and delete them.")

Scope = Annotated[str, Argument(help="The rate limit's scope.", metavar="SCOPE")]


@command(group, "list")
async def list_limits(call: Call) -> Report:
    """List rate limits and the tokens left in them."""
    async with opened(call) as forge:
        limits = await forge.limits.list()
    return Report([document(limit) for limit in limits], [_rows(limits)])


@command(group, "set")
async def set_limit(
    call: Call,
    scope: Scope,
    capacity: Annotated[
        float,
        Option(
            metavar="N",
            help="The most tokens it holds: the largest burst.",
            parser=values.number("--capacity", least=1),
        ),
    ],
    per: Annotated[
        timedelta | None,
        Option(
            metavar="DURATION",
            parser=values.duration("--per"),
            help="The time in which that many tokens are refilled, like 1m.",
        ),
    ] = None,
    refill: Annotated[
        float | None,
        Option(
            metavar="N",
            help="Instead of --per: how many tokens are refilled per second.",
            parser=values.number("--refill"),
        ),
    ] = None,
) -> Report:
    """Create a rate limit, or change one. A new one is full; a changed one keeps its tokens, up to the capacity, and holds for its keys at once."""
    if (per is None) is (refill is None):
        raise InvalidInput(
            f"{'Neither' if per is None else 'Each'} of --per and --refill is given, allowed is one of them, like --per 1m."
        )
    async with opened(call) as forge:
        limit = await forge.limits.set(scope, capacity, per=per, refill=refill)
    return Report(document(limit), [_rows([limit])])


@command(group, "keys")
async def keys(
    call: Call,
    scope: Scope,
    top: Annotated[
        int,
        Option(
            metavar="N", help="How many keys to list.", parser=values.whole("--top", least=1, most=10_000)
        ),
    ] = 20,
) -> Report:
    """List the keys of a rate limit that are in use, those of which the most is spent first."""
    async with opened(call) as forge:
        limit = await forge.limits.get(scope)
        hottest = await forge.limits.hottest(scope, limit=top)
        now = await forge.storage.now()
    cells = [
        [
            use.key,
            values.shown_number(use.spent),
            values.shown_number(max(0.0, limit.capacity - use.spent)),
            "never" if use.free_at is None else in_words(use.free_at - now),
        ]
        for use in hottest
    ]
    columns = ["key", "spent", "left", "full again in"]
    return Report(
        [document(use) for use in hottest],
        [Rows(columns, cells, "No key is in use.", frozenset({"spent", "left"}))],
    )


@command(group, "reset")
async def reset(
    call: Call, scope: Scope, key: Annotated[str, Argument(help="The key.", metavar="KEY")]
) -> Report:
    """Make a key of a rate limit full again: of the jobs that wait for its tokens the first ones run now, the others sooner than they were told."""
    async with opened(call) as forge:
        was_spent = await forge.limits.reset(scope, key)
    said = "is full again" if was_spent else "was full: nothing of it is spent"
    return Report(
        {"scope": scope, "key": key, "reset": was_spent}, [f"Key {key!r} of rate limit {scope!r} {said}."]
    )


@command(group, "empty")
async def empty(call: Call, scope: Scope) -> Report:
    """Empty a rate limit and all its keys, for all workers at once, for example after a 429 response."""
    async with opened(call) as forge:
        await forge.limits.empty(scope)
    return Report({"scope": scope, "emptied": True}, [f"Rate limit {scope!r} is empty."])


@command(group, "delete")
async def delete(call: Call, scope: Scope) -> Report:
    """Delete a rate limit; handlers that ask for it fail from then on."""
    async with opened(call) as forge:
        await forge.limits.delete(scope)
    return Report({"scope": scope, "deleted": True}, [f"Rate limit {scope!r} is deleted."])


def _rows(limits: Any) -> Rows:
    columns = ["scope", "tokens", "capacity", "refill", "managed by"]
    numbers = frozenset({"tokens", "capacity", "refill"})
    return Rows(columns, [_row(limit) for limit in limits], "No rate limits.", numbers)


def _row(limit: RateLimit) -> list[str]:
    return [
        limit.scope,
        values.shown_number(limit.tokens),
        values.shown_number(limit.capacity),
        f"{values.shown_number(limit.refill)}/s",
        limit.managed_by or "",
    ]

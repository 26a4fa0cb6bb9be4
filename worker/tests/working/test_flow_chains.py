"""Chains made at random return what their steps return when they are called one after the other."""

import random
from typing import Any

import pytest

from forge_jobs import Context, Flow, Forge, Group
from tests.working.test_context import run

OPTIONS: list[dict[str, Any]] = [
    {},
    {"group": "serial"},
    {"group": [Group("two at a time", 2), Group("one at a time", 1)]},
    {"tenant": "one"},
]


@pytest.fixture
def does(forge: Forge) -> dict[str, Any]:
    """Handlers by what they do."""

    async def add(number: int) -> int:
        return number + 1

    async def double(number: int) -> int:
        return 2 * number

    async def count_to(number: int) -> list[int]:
        return list(range(number % 5))

    async def even(number: int) -> int | None:
        return number if number % 2 == 0 else None

    async def weigh(so_far: int, number: int) -> int:
        return 3 * so_far + number

    async def third(ctx: Context, number: int) -> int | None:
        return number + 10 if ctx.flow.iteration == 3 else None

    async def choose(number: int) -> str:
        return "odd" if number % 2 else "even"

    async def grow(ctx: Context, number: int) -> int:
        if number % 3 == 0:
            ctx.flow.add(handlers["add"], name="more", number=number, is_answer=True)
        return number

    functions = (add, double, count_to, even, weigh, third, choose, grow)
    handlers: dict[str, Any] = {function.__name__: forge.handler(function) for function in functions}
    return handlers


def with_a_list(flow: Flow, does: Any, dice: random.Random, value: int, name: str) -> int:
    """A list is counted, changed, and folded; return what becomes of it."""
    flow.and_then(does("count_to"), name=f"{name} list")
    items = list(range(value % 5))
    if dice.random() < 0.7:
        flow.map(does("double"), name=f"{name} map")
        items = [2 * one for one in items]
    if dice.random() < 0.4:
        flow.filter_map(does("even"), name=f"{name} even")
        items = [one for one in items if one % 2 == 0]
    flow.fold(does("weigh"), 1, name=f"{name} fold")
    value = 1
    for one in items:
        value = 3 * value + one
    return value


def chain(handlers: dict[str, Any], dice: random.Random, value: int) -> tuple[Flow, int]:
    """A flow, and what its last node returns when it is started with this value."""

    def does(what: str) -> Any:
        return handlers[what].options(**dice.choice(OPTIONS))

    flow, value = Flow("f").and_then(does("add"), name="first"), value + 1
    for number in range(dice.randint(1, 5)):
        name = f"n{number}"
        what = dice.choice(["double", "third", "grow", "branch", "list"])
        if what == "double":
            flow, value = flow.and_then(does("double"), name=name), 2 * value
        elif what == "third":
            flow, value = flow.repeat(does("third"), name=name), value + 10
        elif what == "grow":
            flow, value = flow.and_then(does("grow"), name=name), value + (value % 3 == 0)
        elif what == "branch":
            longer = Flow("longer").and_then(does("add")).and_then(does("double"))
            flow.branch(does("choose"), {"odd": does("double"), "even": longer}, name=name)
            value = 2 * value if value % 2 else 2 * (value + 1)
        else:
            value = with_a_list(flow, does, dice, value, name)
    return flow.and_then(handlers["add"], name="last"), value + 1


@pytest.mark.parametrize("seed", range(2))
async def test_chains_return_what_their_steps_return_one_after_the_other(
    forge: Forge, does: dict[str, Any], seed: int
) -> None:
    dice = random.Random(seed)
    expected: dict[int, int] = {}
    for _ in range(6):
        value = dice.randint(0, 9)
        flow, returned = chain(does, dice, value)
        started = await flow.start(value)
        expected[started.id] = returned

    await run(forge)

    for flow_id, returned in expected.items():
        assert await forge.flows.wait(flow_id, timeout=10) == {"last": returned}


async def test_the_answer_of_a_last_node_is_returned_in_its_place(forge: Forge, does: dict[str, Any]) -> None:
    started = await Flow("f").and_then(does["grow"]).start(3)

    await run(forge)

    assert await forge.flows.wait(started, timeout=10) == {"grow.more": 4}

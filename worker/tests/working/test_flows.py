"""Flows, as programs declare and workers run them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import (
    Context,
    Flow,
    FlowDead,
    FlowNotFound,
    FlowState,
    Forge,
    Group,
    InvalidInput,
    State,
    WaitTimeout,
    WrongFlowState,
)
from forge_jobs.client import waits
from forge_jobs.errors import StorageUnavailable
from forge_jobs.telemetry.events import DatabaseLost
from forge_jobs.worker import nodes
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working
from tests.working.test_context import run


@pytest.fixture
def steps(forge: Forge) -> dict[str, Any]:
    """Handlers by their kinds."""

    async def add(number: int, more: int = 1) -> int:
        return number + more

    async def double(number: int) -> int:
        return 2 * number

    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    async def count_to(number: int) -> list[int]:
        return list(range(number))

    async def even(number: int) -> int | None:
        return number if number % 2 == 0 else None

    async def join(left: int, right: int) -> list[int]:
        return [left, right]

    async def shown(value: int) -> str:
        return f"<{value}>"

    functions = (add, double, total, count_to, even, join, shown)
    return {function.__name__: forge.handler(max_attempts=1)(function) for function in functions}


async def result(forge: Forge, flow: Flow, *given: Any, **options: Any) -> Any:
    """Run the flow to its end; return what its last nodes returned."""
    started = await flow.start(*given, **options)
    await run(forge)
    return await forge.flows.wait(started, timeout=10)


async def test_each_step_of_a_chain_gets_what_the_one_before_returned(forge: Forge, steps: Any) -> None:
    flow = Flow("sums").and_then(steps["add"]).and_then(steps["double"]).and_then(steps["shown"])

    assert await result(forge, flow, 1) == {"shown": "<4>"}


async def test_a_step_gets_what_it_is_given_besides(forge: Forge, steps: Any) -> None:
    assert await result(forge, Flow("f").and_then(steps["add"], more=10).and_then(steps["double"]), 1) == {
        "double": 22
    }


async def test_a_join_gets_the_results_in_the_order_in_which_it_names_them(forge: Forge, steps: Any) -> None:
    flow = Flow("f")
    one, two = flow.node(steps["add"]), flow.node(steps["double"])
    flow.node(steps["join"]).depends_on(two, one)

    assert await result(forge, flow, 5) == {"join": [10, 6]}
    assert await result(forge, flow, inputs=[1, 2]) == {"join": [4, 2]}


async def test_a_node_may_get_all_results_as_a_list(forge: Forge, steps: Any) -> None:
    flow = Flow("f")
    nodes = [flow.node(steps["double"], name=f"n{number}", number=number) for number in range(30)]
    flow.node(steps["total"]).collects(*nodes)

    assert await result(forge, flow) == {"total": sum(2 * number for number in range(30))}


async def test_each_item_becomes_a_job_and_what_they_returned_is_a_list(forge: Forge, steps: Any) -> None:
    flow = Flow("f").and_then(steps["count_to"]).map(steps["double"]).and_then(steps["total"])

    assert await result(forge, flow, 4) == {"total": 12}
    assert await result(forge, flow, 0) == {"total": 0}


async def test_a_list_of_more_items_than_a_node_may_add_is_refused_in_one_sentence(
    forge: Forge, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "MOST_NODES", 3)
    started = await Flow("f").and_then(steps["count_to"]).map(steps["double"]).start(4)
    await run(forge)

    with pytest.raises(FlowDead, match="double: double gets 4 items, allowed are 3"):
        await forge.flows.wait(started)


async def test_what_a_node_said_was_its_result_is_passed_on(forge: Forge, steps: Any) -> None:
    async def said(ctx: Context, number: int) -> None:
        await ctx.set_result(number + 40)

    flow = Flow("f").and_then(forge.handler(said)).and_then(steps["shown"])

    assert await result(forge, flow, 2) == {"shown": "<42>"}


async def test_what_is_none_is_left_out(forge: Forge, steps: Any) -> None:
    flow = Flow("f").and_then(steps["count_to"]).filter_map(steps["even"])

    assert await result(forge, flow, 6) == {"even[]": [0, 2, 4]}


async def test_a_dead_item_may_be_left_out(forge: Forge, steps: Any) -> None:
    async def picky(number: int) -> int:
        if number == 1:
            raise ValueError("not this one")
        return number

    handler = forge.handler(max_attempts=1)(picky)
    chain = Flow("f").and_then(steps["count_to"])
    assert await result(forge, chain.filter_map(handler, on_dead="skip"), 3) == {"picky[]": [0, 2]}

    started = await Flow("f").and_then(steps["count_to"]).map(handler).start(3)
    await run(forge)
    with pytest.raises(FlowDead, match=r"picky\[1\]: ValueError: not this one"):
        await forge.flows.wait(started)


async def test_items_are_folded_one_after_the_other(forge: Forge, steps: Any) -> None:
    async def append(so_far: str, item: int) -> str:
        return f"{so_far}{item}"

    flow = Flow("f").and_then(steps["count_to"]).fold(forge.handler(append), ":")

    assert await result(forge, flow, 4) == {"append[3]": ":0123"}
    assert await result(forge, flow, 0) == {"append": ":"}


async def test_a_node_is_repeated_while_it_returns_none(forge: Forge, steps: Any) -> None:
    async def poll(ctx: Context, number: int) -> int | None:
        return number * 100 + ctx.flow.iteration if ctx.flow.iteration == 3 else None

    handler = forge.handler(max_attempts=1)(poll)
    assert await result(
        forge, Flow("f").and_then(steps["add"]).repeat(handler).and_then(steps["shown"]), 1
    ) == {"shown": "<203>"}
    started = await Flow("f").repeat(handler, most=2).start(1)
    await run(forge)
    with pytest.raises(FlowDead, match="poll#2: poll#2 returned None 2 times"):
        await forge.flows.wait(started)


async def test_jobs_of_which_a_node_is_made_are_in_its_group_and_have_its_tags(
    forge: Forge, steps: Any
) -> None:
    async def poll(ctx: Context) -> list[int] | None:
        return [1, 2] if ctx.flow.iteration == 2 else None

    async def show(number: int) -> str:
        return str(number)

    async def append(so_far: str, item: str) -> str:
        return so_far + item

    poller, shower, appender = [
        forge.handler(group="nobody")(function).options(group=Group("api", 2), tags=["night"])
        for function in (poll, show, append)
    ]
    started = await Flow("f").repeat(poller).map(shower).fold(appender, "").start()
    await run(forge)

    assert await forge.flows.wait(started, timeout=10) == {"append[1]": "12"}
    nodes = [one for one in await forge.flows.nodes(started.id) if not one.name.endswith("[]")]
    assert len(nodes) == 8
    for node in nodes:
        job = await forge.jobs.get(node.job_id)
        assert (node.name, job.groups, job.tags) == (node.name, (Group("api", 2),), ("night",))


@pytest.mark.parametrize(("number", "shown"), [(1, "<2>"), (10, "<11>")])
async def test_a_branch_leads_to_one_of_its_routes(forge: Forge, steps: Any, number: int, shown: str) -> None:
    async def choose(number: int) -> str:
        return "small" if number < 5 else "large"

    flow = (
        Flow("f")
        .and_then(steps["even"].forge.handler(kind="same")(_same))
        .branch(
            forge.handler(choose), {"small": steps["double"], "large": Flow("sub").and_then(steps["add"])}
        )
        .and_then(steps["shown"])
    )

    assert await result(forge, flow, number) == {"shown": shown}


async def _same(number: int) -> int:
    return number


def choose_in_a_process(number: int) -> str:
    return "small" if number < 5 else "large"


def count_in_a_process(file: str) -> int | None:
    with open(file, "a+", encoding="utf-8") as calls:
        calls.write("x")
        calls.seek(0)
        number = len(calls.read())
    return number if number == 3 else None


async def test_a_function_in_a_process_may_say_which_route_is_taken_and_when_it_is_not_called_again(
    forge: Forge, steps: Any, tmp_path: Path
) -> None:
    in_a_process: Any = forge.handler(executor="process", max_attempts=1)
    choose, count = in_a_process(choose_in_a_process), in_a_process(count_in_a_process)
    flow = Flow("f").and_then(steps["double"])

    assert await result(forge, flow.branch(choose, {"small": steps["add"], "large": steps["shown"]}), 1) == {
        "small": 3
    }
    assert await result(forge, Flow("g").repeat(count, most=5), str(tmp_path / "calls")) == {
        "count_in_a_process#3": 3
    }


async def test_the_routes_that_a_branch_does_not_take_never_run_and_what_else_waits_for_it_does(
    forge: Forge, steps: Any
) -> None:
    did: list[str] = []

    async def choose(number: int) -> str:
        return "small"

    async def ship(number: int) -> int:
        did.append(f"ship {number}")
        return number

    async def refund(number: int) -> int:
        did.append(f"refund {number}")
        return number

    async def over() -> str:
        did.append("over")
        return "over"

    both, shipped = Flow("both"), forge.handler(ship)
    both.node(steps["total"]).collects(*(both.node(shipped, name=name) for name in ("one", "two")))
    flow = (
        Flow("f")
        .and_then(steps["double"])
        .branch(forge.handler(choose), {"large": forge.handler(refund), "small": both})
    )
    alone = flow.and_then(steps["shown"]).on_complete(forge.handler(over))
    started = await alone.start(1)
    await run(forge)

    assert await forge.flows.wait(started, timeout=10) == {"over": "over"}
    assert sorted(did) == ["over", "ship 2", "ship 2"]
    nodes = {node.name: node.state for node in await forge.flows.nodes(started.id)}
    assert (nodes["large"], nodes["shown"]) == ("skipped", "done")


async def test_what_returned_none_or_cannot_be_kept_is_none_in_what_a_flow_returned(
    forge: Forge, steps: Any
) -> None:
    async def silent(value: int) -> None: ...

    async def strange(value: int) -> object:
        return object()

    flow = Flow("f")
    first = flow.node(steps["double"])
    for function in (silent, strange, steps["shown"]):
        last = function if function is steps["shown"] else forge.handler(function)
        flow.node(last).depends_on(first)

    assert await result(forge, flow, 1) == {"silent": None, "strange": None, "shown": "<2>"}


async def test_a_flow_with_a_branch_is_a_node_of_another_one(forge: Forge, steps: Any) -> None:
    async def choose(number: int) -> str:
        return "add" if number < 5 else "show"

    inner = (
        Flow("inner")
        .and_then(steps["double"])
        .branch(forge.handler(choose), {"add": steps["add"], "show": steps["add"]})
        .and_then(steps["shown"])
    )

    assert await result(forge, Flow("outer").and_then(steps["add"]).and_then(inner), 1) == {
        "inner.shown": "<5>"
    }


async def test_a_branch_that_leads_nowhere_is_dead(forge: Forge, steps: Any) -> None:
    async def choose(number: int) -> str:
        return "nowhere"

    flow = (
        Flow("f")
        .and_then(steps["add"])
        .branch(forge.handler(max_attempts=1)(choose), {"one": steps["double"]})
    )
    started = await flow.start(1)
    await run(forge)

    with pytest.raises(FlowDead, match="choose leads to 'nowhere', allowed is one of one"):
        await forge.flows.wait(started)


async def test_a_branch_is_not_completed_by_hand(forge: Forge, steps: Any) -> None:
    flow = Flow("f").and_then(steps["add"]).branch(steps["shown"], {"one": steps["double"]})
    started = await flow.start(1)

    with pytest.raises(InvalidInput, match=r"Job \d+ is the branch of a flow, allowed are others"):
        await forge.jobs.complete(started.jobs["shown"], "one")

    await forge.jobs.complete(started.jobs["add"], 2)
    assert (await forge.flows.get(started.id)).done == 1


async def test_a_flow_may_be_a_node(forge: Forge, steps: Any) -> None:
    inner = Flow("inner").and_then(steps["add"]).and_then(steps["double"])
    flow = Flow("outer")
    first = flow.node(steps["add"])
    both = [flow.node(inner, name=name).depends_on(first) for name in ("left", "right")]
    flow.node(steps["join"]).depends_on(*both)

    assert await result(forge, flow, 1) == {"join": [6, 6]}
    assert await result(forge, Flow("f").and_then(inner).and_then(steps["shown"]), 1) == {"shown": "<4>"}


async def test_a_handler_adds_nodes_that_others_wait_for(forge: Forge, steps: Any) -> None:
    async def plan(ctx: Context, number: int) -> None:
        parts = [ctx.flow.add(steps["double"], name=str(part), number=part) for part in range(number)]
        ctx.flow.add(steps["total"], is_answer=True).collects(*parts)

    flow = Flow("f").and_then(forge.handler(plan)).and_then(steps["shown"])

    assert await result(forge, flow, 4) == {"shown": "<12>"}


async def test_what_a_failed_attempt_has_added_is_never_there(forge: Forge, steps: Any) -> None:
    async def plan(ctx: Context, number: int) -> None:
        ctx.flow.add(steps["double"], number=number)
        if ctx.attempt == 1:
            raise ValueError("once")

    await forge.queues.set("default", backoff_enabled=False)
    started = await Flow("f").and_then(forge.handler(max_attempts=2)(plan)).start(1)
    await run(forge)

    assert (await forge.flows.get(started.id)).nodes == 2


async def test_a_delay_is_kept(forge: Forge, steps: Any) -> None:
    started = (
        await Flow("f")
        .and_then(steps["add"])
        .delay_for(timedelta(hours=1))
        .and_then(steps["double"])
        .start(1)
    )
    await run(forge)

    job = await forge.jobs.get(started.jobs["double"])
    assert job.state is State.SCHEDULED
    assert job.run_at is not None
    assert timedelta(minutes=59) < job.run_at - await forge.storage.now() <= timedelta(hours=1)


async def test_a_failed_flow_goes_on_from_what_failed(forge: Forge, steps: Any) -> None:
    ran: list[str] = []

    async def fragile(number: int) -> int:
        ran.append("fragile")
        if len(ran) == 1:
            raise ValueError("once")
        return number

    flow = (
        Flow("f")
        .and_then(steps["add"])
        .and_then(forge.handler(max_attempts=1)(fragile))
        .and_then(steps["shown"])
    )
    started = await flow.start(1)
    await run(forge)
    with pytest.raises(FlowDead, match=f"Flow {started.id} is dead: fragile: ValueError: once"):
        await forge.flows.wait(started)

    status = await forge.flows.retry(started.id)
    assert (status.state, status.left) == (FlowState.RUNNING, 2)
    await run(forge)

    assert await forge.flows.wait(started) == {"shown": "<2>"}
    with pytest.raises(WrongFlowState, match=f"Flow {started.id} is done and was not retried"):
        await forge.flows.retry(started.id)


async def test_a_dead_node_may_be_passed_over(forge: Forge, steps: Any) -> None:
    async def broken(number: int) -> int:
        raise ValueError("no")

    async def last(ctx: Context, left: int | None, right: int) -> list[object]:
        return [left, right, dict(ctx.flow.errors)]

    flow = Flow("f")
    left = flow.node(forge.handler(max_attempts=1)(broken), on_dead="continue")
    right = flow.node(steps["add"])
    flow.node(forge.handler(last)).depends_on(left, right)

    assert await result(forge, flow, 1) == {"last": [None, 2, {"broken": "ValueError: no"}]}


@pytest.mark.parametrize("broken", [False, True])
async def test_callbacks_are_called_when_all_have_ended(forge: Forge, broken: bool) -> None:
    called: list[object] = []

    async def row(number: int) -> int:
        if broken and number == 1:
            raise ValueError("not this one")
        return number

    async def celebrate(note: str) -> None:
        called.append(note)

    async def report(ctx: Context) -> None:
        called.append((sorted(ctx.flow.results), dict(ctx.flow.errors)))

    handler = forge.handler(max_attempts=1)(row)
    flow = Flow("rows")
    for number in range(3):
        flow.node(handler, name=f"row {number}", number=number)
    flow.on_success(forge.handler(celebrate), note="all are in").on_complete(forge.handler(report))
    started = await flow.start()
    await run(forge)

    status = await forge.flows.get(started.id)
    if broken:
        assert called == [(["row 0", "row 2"], {"row 1": "ValueError: not this one"})]
        assert (status.state, status.done, status.dead) == (FlowState.DEAD, 3, 2)
    else:
        assert sorted(map(str, called)) == sorted(map(str, ["all are in", (["row 0", "row 1", "row 2"], {})]))
        assert (status.state, status.done) == (FlowState.DONE, 5)


async def test_why_says_for_what_a_node_waits(forge: Forge, steps: Any) -> None:
    flow = Flow("f")
    nodes = [flow.node(steps["double"], name=f"n{number}", number=number) for number in range(3)]
    flow.node(steps["total"]).collects(*nodes)
    started = await flow.start()

    why = await forge.jobs.why(started.jobs["total"])

    assert list(why.reasons) == [
        f"It waits for job {started.jobs['n0']} (n0) and 2 others of flow {started.id}."
    ]


async def test_flows_are_looked_at_and_cancelled(forge: Forge, steps: Any) -> None:
    started = await Flow("f").and_then(steps["add"]).and_then(steps["double"]).start(1)
    assert [one.id for one in await forge.flows.list(state="running", name="f")] == [started.id]
    with pytest.raises(
        WaitTimeout, match=f"Flow {started.id} did not end within 0.01 s: 2 nodes have not ended"
    ):
        await forge.flows.wait(started, timeout=0.01)

    status = await forge.flows.cancel(started.id)

    assert (status.state, status.dead) == (FlowState.CANCELLED, 2)
    with pytest.raises(WrongFlowState):
        await forge.flows.cancel(started.id)
    for call in (forge.flows.get, forge.flows.cancel, forge.flows.retry, forge.flows.nodes):
        with pytest.raises(FlowNotFound, match="There is no flow 999"):
            await call(999)


async def test_a_flow_starts_with_a_transaction_or_not_at_all(forge: Forge, steps: Any) -> None:
    with pytest.raises(InvalidInput, match=r"connection is a builtins\.int"):
        await Flow("f").and_then(steps["add"]).start(1, connection=1)
    assert await forge.flows.list() == []


def test_pictures_show_nodes_and_edges(steps: Any) -> None:
    flow = Flow('a "b"').and_then(steps["count_to"]).map(steps["double"])

    assert flow.to_mermaid() == 'flowchart TD\n    n0["count_to"]\n    n1["double (map)"]\n    n0 --> n1\n'
    assert flow.to_dot() == (
        'digraph "a \\"b\\"" {\n    n0 [label="count_to"];\n    n1 [label="double (map)"];\n    n0 -> n1;\n}\n'
    )


def _circle(steps: Any) -> Flow:
    flow = Flow("f")
    one, two = flow.node(steps["add"], name="a"), flow.node(steps["add"], name="b")
    one.depends_on(two)
    two.depends_on(one)
    return flow


def _wrong_type(steps: Any) -> Flow:
    flow = Flow("f")
    flow.node(steps["double"]).depends_on(flow.node(steps["shown"]))
    return flow


def _too_many(steps: Any) -> Flow:
    flow = Flow("f")
    flow.node(steps["double"], name="last").depends_on(*(flow.node(steps["add"], name=name) for name in "ab"))
    return flow


def _too_few(steps: Any) -> Flow:
    flow = Flow("f")
    flow.node(steps["join"]).depends_on(flow.node(steps["add"]))
    return flow


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_circle, "goes in a circle: a -> b -> a"),
        (_wrong_type, "Node 'double' gets str from 'shown' as number, allowed is int"),
        (_too_many, "Node 'last' depends on 2 nodes and its function takes 1 more argument: number"),
        (_too_few, "Node 'join' is not given right"),
        (lambda steps: Flow("f"), "has no nodes"),
        (lambda steps: Flow("f").and_then(steps["add"]).and_then(steps["add"]), "two nodes 'add'"),
        (
            lambda steps: Flow("f").and_then(steps["add"]).map(steps["double"]),
            "which is int, allowed is a list",
        ),
        (
            lambda steps: Flow("f").and_then(steps["add"], nonsense=1),
            "is given 'nonsense', its function takes",
        ),
        (lambda steps: Flow("f").and_then(steps["add"], on_dead="maybe"), "on_dead is 'maybe'"),
        (
            lambda steps: Flow("f").and_then(Flow("g").and_then(steps["add"]), on_dead="skip"),
            "on_dead of the flow 'g' is 'skip', allowed is to say it of its nodes",
        ),
        (lambda steps: Flow("f").and_then("add"), "does 'add', allowed is a handler, or a flow"),
        (lambda steps: Flow(""), "A flow is named ''"),
        (lambda steps: Flow("f").and_then(steps["add"].options(key="k")), "key is given to a node"),
        (lambda steps: Flow("f").branch(steps["add"], {}), "routes is {}"),
        (lambda steps: Flow("f").repeat(steps["add"], most=0), "most is 0"),
        (lambda steps: Flow("f").fold(steps["double"], 0), "folds with a function that takes number"),
    ],
)
def test_a_flow_that_cannot_be_run_is_refused_in_one_sentence(steps: Any, wrong: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        wrong(steps).validate()
    assert message in str(refused.value)


async def test_a_flow_is_started_with_as_many_inputs_as_it_has_start_nodes(forge: Forge, steps: Any) -> None:
    flow = Flow("f")
    flow.node(steps["join"]).depends_on(flow.node(steps["add"]), flow.node(steps["double"]))

    with pytest.raises(InvalidInput, match="has 2 start nodes and got 3 inputs"):
        await flow.start(inputs=[1, 2, 3])
    assert await forge.flows.list() == []


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_who_waits_for_a_flow_hears_of_its_end(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "YOUNG", -1.0)
    monkeypatch.setattr(waits, "FIRST_PAUSE", 1000.0)  # so that looking alone would find nothing
    monkeypatch.setattr(waits, "LONGEST_PAUSE", 1000.0)
    may_end = asyncio.Event()

    @forge.handler
    async def work(number: int) -> int:
        await may_end.wait()
        return number

    def is_announced() -> bool:
        of_flows = forge._waits.get("flow")
        return of_flows is not None and any(wait.announced_at for wait in of_flows._waits.values())

    async with working(forge):
        started = await Flow("f").and_then(work).start(7)
        waiting = asyncio.create_task(forge.flows.wait(started, timeout=60))
        await eventually(is_announced)
        may_end.set()
        assert await waiting == {"work": 7}


async def test_many_who_wait_for_flows_share_their_looks(
    forge: Forge, steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = forge.storage.flow_ends.look

    async def counted(ids: Sequence[int]) -> Any:
        looks.append(len(ids))
        return await look(ids)

    monkeypatch.setattr(forge.storage.flow_ends, "look", counted)
    flow = Flow("f").and_then(steps["double"])
    started = [await flow.start(number) for number in range(60)]
    waiting = [asyncio.create_task(forge.flows.wait(one, timeout=60)) for one in started]
    await eventually(lambda: looks)

    assert looks[0] == 60
    async with working(forge):
        assert await asyncio.gather(*waiting) == [{"double": 2 * number} for number in range(60)]
    assert len(looks) < 60


async def test_an_outage_is_waited_for_with_the_flow(
    forge: Forge, steps: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, tries = forge.storage.flow_ends.look, 0

    async def away(ids: Sequence[int]) -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise StorageUnavailable("The database is away.")
        return await look(ids)

    monkeypatch.setattr(forge.storage.flow_ends, "look", away)
    async with working(forge):
        started = await Flow("f").and_then(steps["double"]).start(4)
        assert await forge.flows.wait(started, timeout=60) == {"double": 8}
    assert "waiting for a flow" in [event.doing for event in events.of(DatabaseLost)]

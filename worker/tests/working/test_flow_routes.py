"""What the routes of branches pass on, and what a node is told of its jobs before it begins."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from forge_jobs import Context, Flow, FlowDead, Forge, InvalidInput
from forge_jobs.handlers.flow_context import ContextFlow
from forge_jobs.model.flow import ClaimedNode, NodePlan
from tests.working.test_context import run
from tests.working.test_flows import result, steps

__all__ = ["steps"]  # a fixture


@pytest.mark.parametrize("rule", ["continue", "skip"])
@pytest.mark.parametrize("routes", [["good", "bad"], ["bad", "good"]])
async def test_what_a_taken_route_returned_is_passed_on_beside_a_dead_one(
    forge: Forge, steps: Any, routes: list[str], rule: str
) -> None:
    async def choose(number: int) -> list[str]:
        return routes

    async def broken(number: int) -> list[int]:
        raise ValueError("broken")

    async def gather(so_far: list[int], number: int) -> list[int]:
        return [*so_far, number]

    chooser, gatherer = forge.handler(choose), forge.handler(gather)
    dies = Flow("r").and_then(forge.handler(max_attempts=1)(broken), on_dead=rule)
    handlers = {"good": steps["count_to"], "bad": dies}

    def flow() -> Flow:
        chain = Flow("f").and_then(steps["add"])
        return chain.branch(chooser, {route: handlers[route] for route in routes})

    assert await result(forge, flow().and_then(steps["total"]), 3) == {"total": 6}
    assert await result(forge, flow().map(steps["double"]), 3) == {"double[]": [0, 2, 4, 6]}
    assert await result(forge, flow().fold(gatherer, []), 3) == {"gather[3]": [0, 1, 2, 3]}


async def test_two_branches_of_a_flow_may_have_routes_of_the_same_names(forge: Forge, steps: Any) -> None:
    async def choose(number: int) -> str:
        return "large" if number > 5 else "small"

    chooser = forge.handler(choose)
    routes = {"small": steps["add"], "large": Flow("sub").and_then(steps["double"]).and_then(steps["shown"])}
    flow = (
        Flow("f")
        .and_then(steps["double"])
        .branch(chooser, {"small": steps["add"], "large": steps["double"]})
        .branch(chooser, routes, name="again")
    )

    assert await result(forge, flow, 1) == {"again.small": 4}
    assert await result(forge, flow, 4) == {"again.large.shown": "<32>"}


async def test_a_node_that_is_repeated_gets_the_same_list_each_time(forge: Forge, steps: Any) -> None:
    async def sum_up(ctx: Context, numbers: list[int]) -> int | None:
        return sum(numbers) if ctx.flow.iteration == 3 else None

    flow = Flow("f")
    one, two = (flow.node(steps["double"], name=name) for name in ("one", "two"))
    flow.repeat(forge.handler(sum_up))
    flow.nodes[-1].collects(one, two)

    assert await result(forge, flow, inputs=[1, 2]) == {"sum_up#3": 6}


def test_a_job_is_placed_by_nothing_that_it_gets_when_it_begins(forge: Forge, steps: Any) -> None:
    async def grouped(user: int = 0, more: int = 1) -> int:
        return user

    async def fair(user: int = 0, more: int = 1) -> int:
        return user

    by_user = forge.handler(group=lambda user: f"user:{user}")(grouped)
    fair_by_user = forge.handler(fair_by="user")(fair)
    by_all = steps["add"].options(group=lambda **said: f"{said}")
    begins = Flow("f").and_then(steps["count_to"])
    wrong = [
        Flow("f").map(by_user),  # started with the list
        Flow("f").and_then(steps["count_to"]).map(by_user),
        Flow("f").and_then(steps["count_to"]).fold(by_user, 0),
        Flow("f").and_then(steps["add"]).and_then(fair_by_user),
        Flow("f").and_then(steps["double"]).and_then(by_all),
    ]

    for flow in wrong:
        with pytest.raises(InvalidInput, match=r"is a function of .(user|number)., which is not known until"):
            flow.validate()
    begins.map(by_user.options(group="all")).validate()
    Flow("f").and_then(by_user).and_then(fair_by_user.options(tenant="one")).validate()
    Flow("f").and_then(steps["count_to"]).map(
        steps["add"].options(group=lambda more: more), more=2
    ).validate()


async def test_a_node_that_is_repeated_has_the_time_limits_of_its_handler_each_time(forge: Forge) -> None:
    async def poll() -> None:
        return None

    handler = forge.handler(start_by=1800, deadline=3600)(poll)
    started = await Flow("f").repeat(handler, every=7200).start()
    await run(forge)

    later = await forge.jobs.get((await forge.flows.nodes(started.id))[-1].job_id)
    assert later.run_at is not None and later.start_by is not None and later.deadline is not None
    assert (later.start_by - later.run_at).total_seconds() == 1800
    assert (later.deadline - later.run_at).total_seconds() == 3600


@pytest.mark.parametrize("how", ["map", "fold", "repeat"])
async def test_each_job_that_a_node_makes_has_the_deadline_that_was_said_of_the_node(
    forge: Forge, how: str
) -> None:
    limits: list[timedelta] = []

    @forge.handler(deadline=90)
    async def poll(ctx: Context, number: int = 0, so_far: int = 0) -> int | None:
        job = await forge.jobs.get(ctx.job_id)
        assert job.deadline is not None
        limits.append(job.deadline - job.created_at)
        return 1 if how != "repeat" or len(limits) == 2 else None

    said, flow = poll.options(deadline=3600), Flow("f")
    chains: dict[str, Any] = {"map": flow.map, "fold": partial(flow.fold, initial=0), "repeat": flow.repeat}
    await chains[how](said).start(*([] if how == "repeat" else [[1, 2]]))
    await run(forge)

    assert len(limits) == 2
    assert min(limits) > timedelta(minutes=59)


async def test_time_limits_that_are_said_of_a_node_hold_for_the_jobs_that_it_makes_later(
    forge: Forge,
) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)

    @forge.handler(start_by=60)
    async def poll() -> None:
        return None

    started = await Flow("f").repeat(poll.options(start_by=1800, deadline=end), every=7200).start()
    await run(forge)

    later = await forge.jobs.get((await forge.flows.nodes(started.id))[-1].job_id)
    assert later.run_at is not None and later.start_by is not None
    assert ((later.start_by - later.run_at).total_seconds(), later.deadline) == (1800, end)


def test_a_node_adds_none_that_would_never_be_there_nor_an_answer_that_says_what_its_death_means(
    forge: Forge, steps: Any
) -> None:
    flow = ContextFlow(ClaimedNode(1, "f", "charge", NodePlan()))
    with pytest.raises(InvalidInput, match=r"on_dead of 'charge.add', the answer of 'charge', is 'skip'"):
        flow.add(steps["add"], on_dead="skip", is_answer=True, number=1)

    completed = ContextFlow(ClaimedNode(1, "f", "charge", NodePlan()))
    completed.require_plain()
    with pytest.raises(InvalidInput, match=r"Node 'charge' adds a node after ctx.complete"):
        completed.add(steps["add"], number=1)


async def test_a_node_whose_result_others_would_get_is_dead_when_that_cannot_be_kept(
    forge: Forge, steps: Any
) -> None:
    async def unlike(number: int) -> Any:
        return object()

    handler = forge.handler(max_attempts=1)(unlike)
    taken = [
        Flow("f").and_then(handler).and_then(steps["add"]),
        Flow("f").and_then(steps["count_to"]).map(handler),
        Flow("f").and_then(steps["count_to"]).map(handler).and_then(steps["total"]),
    ]
    alone = Flow("f").and_then(handler).on_success(steps["double"], number=4)

    for flow in taken:
        started = await flow.start(2)
        await run(forge)
        with pytest.raises(
            FlowDead, match=r"its result was not kept: .* Other nodes of its flow would get it"
        ):
            await forge.flows.wait(started)
    assert await result(forge, alone, 1) == {"double": 8}


def test_what_a_flow_says_and_nothing_would_heed_is_refused(forge: Forge, steps: Any) -> None:
    inner = Flow("inner", deadline=60).and_then(steps["add"])
    begun = Flow("f").and_then(steps["double"])

    with pytest.raises(
        InvalidInput, match=r"The flow 'inner', a part of 'f', has a deadline, allowed is one"
    ):
        begun.and_then(inner)
    with pytest.raises(
        InvalidInput, match=r"The flow 'inner', a part of 'f', has a deadline, allowed is one"
    ):
        begun.branch(steps["shown"], {"one": inner})
    with pytest.raises(
        InvalidInput, match=r"The flow 'g' ends with delay_for, allowed is one before another"
    ):
        Flow("g").and_then(steps["add"]).delay_for(60).validate()


async def test_a_node_behind_routes_gets_what_others_return_besides(forge: Forge, steps: Any) -> None:
    async def choose(number: int) -> str:
        return "small"

    flow = (
        Flow("f")
        .and_then(steps["double"])
        .branch(forge.handler(choose), {"small": steps["add"], "large": steps["double"]})
        .and_then(steps["join"])
    )
    join = flow.nodes[-1]
    join.depends_on(flow.node(steps["add"], name="besides"))

    assert await result(forge, flow, 10) == {"join": [21, 11]}

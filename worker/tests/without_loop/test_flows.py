"""Flows are started and looked after without an event loop, also in a caller's transaction."""

from collections.abc import Callable

import pytest

from forge_jobs import Dead, Flow, Forge
from forge_jobs.errors import FlowDead, FlowNotFound, InvalidInput, WaitTimeout, WrongFlowState
from forge_jobs.model.flow import FlowState, NodeState
from tests.storage.databases import Database
from tests.without_loop.test_signals import a_connection_to
from tests.without_loop.working import a_worker_of


def declared(forge: Forge, packed: list[int] | None = None) -> Flow:
    """Return a chain of three, whose middle fails for an order that is negative. `packed` gets each order that it has seen."""

    @forge.handler
    def charge(order: int) -> int:
        return order

    @forge.handler
    def pack(order: int) -> list[int]:
        if packed is not None:
            packed.append(order)
        if order < 0:
            raise Dead("nothing to pack")
        return [order, order]

    @forge.handler
    def ship(parcels: list[int]) -> int:
        return len(parcels)

    return Flow("order").and_then(charge).and_then(pack).and_then(ship)


def test_a_flow_is_started_and_waited_for(new_forge: Callable[[], Forge], forge: Forge) -> None:
    theirs = new_forge()
    declared(theirs)

    with a_worker_of(theirs):
        started = forge.sync.flows.start(declared(forge), 7)
        assert forge.sync.flows.wait(started, timeout=30) == {"ship": 2}

    assert set(started.jobs) == {"charge", "pack", "ship"}
    status = forge.sync.flows.get(started.id)
    assert (status.state, status.nodes, status.done) == (FlowState.DONE, 3, 3)
    assert [flow.id for flow in forge.sync.flows.list(state="done")] == [started.id]
    assert [node.state for node in forge.sync.flows.nodes(started.id)] == [NodeState.DONE] * 3


def test_a_dead_flow_is_said_and_goes_on_from_what_failed(
    new_forge: Callable[[], Forge], forge: Forge
) -> None:
    theirs, packed = new_forge(), list[int]()
    declared(theirs, packed)

    with a_worker_of(theirs):
        started = forge.sync.flows.start(declared(forge), -1)
        with pytest.raises(FlowDead, match="nothing to pack"):
            forge.sync.flows.wait(started, timeout=30)
        assert packed == [-1]
        assert forge.sync.flows.retry(started.id).id == started.id
        with pytest.raises(FlowDead):
            forge.sync.flows.wait(started.id, timeout=30)
    assert packed == [-1, -1]


def test_a_flow_is_cancelled_and_who_waits_too_short_is_told(forge: Forge) -> None:
    started = forge.sync.flows.start(declared(forge), 7)

    with pytest.raises(WaitTimeout, match="3 nodes have not ended"):
        forge.sync.flows.wait(started, timeout=0.05)
    assert forge.sync.flows.cancel(started.id).state is FlowState.CANCELLED
    with pytest.raises(WrongFlowState):
        forge.sync.flows.cancel(started.id)
    with pytest.raises(FlowNotFound):
        forge.sync.flows.get(started.id + 1)
    with pytest.raises(InvalidInput, match="flow is 'order', allowed is a Flow"):
        forge.sync.flows.start("order")  # type: ignore[arg-type]


@pytest.mark.parametrize("commits", [True, False])
def test_in_a_callers_transaction_it_is_started_when_that_commits(
    database: Database, new_forge: Callable[[], Forge], forge: Forge, commits: bool
) -> None:
    forge.sync.open()
    fresh = new_forge()  # the first call of a process must not open what the transaction holds

    with a_connection_to(database) as connection:
        fresh.sync.enqueue("fulfil", connection=connection)
        started = fresh.sync.flows.start(declared(fresh), 7, connection=connection)
        if commits:
            connection.commit()
        else:
            connection.rollback()

    assert [flow.id for flow in forge.sync.flows.list()] == ([started.id] if commits else [])

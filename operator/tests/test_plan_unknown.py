"""What could not be read is never taken for nothing."""

import pytest

from forge_operator.plan import actions as act
from forge_operator.state.memory import Memory
from forge_operator.state.observed import Unknown
from tests.world import World, autoscaled, workers

AWAY = Unknown("ConnectionFailed", "The database cannot be reached.")


def with_load() -> World:
    world = World({"workers": autoscaled(slots=2)})
    world.run(30)
    world.enqueue(200, 60)
    world.run(200)
    assert world.deployment("1").replicas > 5
    return world


def test_with_the_database_away_no_pod_goes_however_long() -> None:
    world = with_load()
    replicas = world.deployment("1").replicas
    world.pending.clear()
    world.database_error = AWAY

    world.run(3600, every=20, step=5)

    assert world.deployment("1").replicas == replicas
    assert world.condition("DatabaseReachable") == ("False", "ConnectionFailed")
    assert world.condition("Ready") == ("Unknown", "DatabaseUnreachable")
    assert world.condition("ScalingActive") == ("False", "StaleSignal")
    assert world.said().count("ConnectionFailed") == 1


def test_it_recovers_by_itself() -> None:
    world = with_load()
    world.pending.clear()
    world.database_error = AWAY
    world.run(600, step=5)

    world.database_error = None
    world.run(1800, step=5)

    assert world.deployment("1").replicas == 0
    assert world.condition("Ready") == ("True", "Serving")


def test_with_the_database_away_a_new_version_is_not_begun() -> None:
    world = World({"workers": workers()}).run(60)
    world.database_error = AWAY

    world.change(workers=workers("2"))
    world.run(60)

    assert len(world.deployments) == 1
    assert world.condition("Progressing") == ("Unknown", "DatabaseUnreachable")


def test_with_the_cluster_unreadable_only_the_configuration_is_synced() -> None:
    world = World({"workers": workers()}).run(60)
    world.cluster_error = Unknown("ApiUnreachable", "The API server cannot be reached.")

    world.change(concurrency={"limit": 3}, workers=workers("2", replicas=0))
    done = world.look()

    assert {type(each) for each in done} == {act.SetQueue}


@pytest.mark.parametrize("reason", ("AuthFailed", "TLSFailed", "ReadOnly"))
def test_a_database_that_refuses_says_why(reason: str) -> None:
    world = World({"workers": workers()}).run(60)
    world.database_error = Unknown(reason, "No.")

    world.look()

    assert world.condition("DatabaseReachable") == ("False", reason)
    assert world.condition("Ready") == ("False", reason)


def test_a_schema_that_is_too_old_is_no_unreachable_database() -> None:
    world = World({})
    world.database_error = Unknown("SchemaTooOld", "Migrate it.")

    world.look()

    assert world.condition("Synced") == ("False", "SchemaTooOld")
    assert world.condition("DatabaseReachable") == ("True", "Connected")


def test_a_fallback_brings_pods_up_never_down_and_from_none_too() -> None:
    spec = {"workers": autoscaled(scaling={"fallbackReplicas": 3})}
    world = World(spec).run(500, step=5)
    assert world.deployment("1").replicas == 0
    world.database_error = AWAY

    world.run(25)
    assert world.deployment("1").replicas == 0, "it was heard within 30 s"

    world.run(20)
    assert world.deployment("1").replicas == 3
    assert world.condition("ScalingActive") == ("False", "Fallback")
    assert (
        world.message("ScalingActive")
        == "The database does not answer, so there are at least 3 pods, as autoscaling.fallbackReplicas requests."
    )
    assert {"Fallback", "WokenUp"} <= set(world.said())

    world.database_error = None
    world.run(20)
    assert world.condition("ScalingActive") == ("True", "Scaling")


def test_a_fallback_works_for_an_operator_that_starts_during_the_outage() -> None:
    world = World({"workers": autoscaled(scaling={"fallbackReplicas": 3})}).run(60)
    world.database_error, world.memory = AWAY, Memory()

    world.look()

    assert world.deployment("1").replicas == 3

"""How a ForgeQueue goes."""

from dataclasses import replace
from datetime import timedelta

from forge_operator import naming
from forge_operator.plan import actions as act
from forge_operator.state.observed import Unknown
from tests.world import World, workers


def deleted(*, jobs: int = 0) -> World:
    """An object that takes its queue along, on its way."""
    world = World({"reclaimPolicy": "Delete", "workers": workers()}).run(60)
    world.enqueue(jobs, 30)
    world.deleting_since = world.now
    return world


def test_an_object_has_no_finalizer_unless_it_takes_its_queue_along() -> None:
    plain, taking = World({}), World({"reclaimPolicy": "Delete"})
    plain.settle()
    taking.settle()

    assert plain.finalizers == ()
    assert taking.finalizers == (naming.FINALIZER,)


def test_an_object_without_finalizer_that_is_being_deleted_is_left_to_kubernetes() -> None:
    world = World({"workers": workers()}).run(60)
    world.deleting_since = world.now

    assert world.look() == ()


def test_an_object_that_changes_its_mind_loses_its_finalizer() -> None:
    world = World({"reclaimPolicy": "Delete"})
    world.settle()

    world.change(reclaimPolicy="Retain")
    world.settle()

    assert world.finalizers == ()


def test_the_queue_goes_when_it_is_empty() -> None:
    world = deleted()

    world.look()

    assert world.is_gone
    assert "mail" not in world.queues


def test_it_waits_for_the_jobs_and_its_workers_go_on() -> None:
    world = deleted(jobs=8)
    world.run(10)

    assert world.condition("DeletionBlocked") == ("True", "QueueNotEmpty")
    assert not world.is_gone

    world.run(100)
    assert world.done == 8
    assert world.is_gone


def test_it_says_that_it_waits_for_jobs_also_while_people_have_it_left_alone() -> None:
    world = deleted(jobs=8)
    world.annotations = {naming.PAUSED: "true"}
    world.look()

    assert world.condition("DeletionBlocked") == ("True", "QueueNotEmpty")
    assert world.condition("Paused") == ("True", "AnnotationPaused")


def test_it_says_that_it_waits_for_the_database_also_when_it_makes_no_sense() -> None:
    world = deleted()
    world.change(concurrency={"limit": -1})
    world.database_error = Unknown("ConnectionFailed", "no route to the database")
    world.look()

    assert world.condition("DeletionBlocked") == ("True", "DatabaseUnreachable")
    assert world.condition("Synced") == ("False", "InvalidSpec")


def test_it_does_not_wait_for_the_jobs_of_a_queue_that_is_not_its_own() -> None:
    world = deleted(jobs=8)
    world.queues["mail"] = replace(world.queues["mail"], managed_by="ForgeQueue other/mail")

    world.look()

    assert world.is_gone
    assert world.queues["mail"].managed_by == "ForgeQueue other/mail"


def test_somebody_may_let_it_go_with_its_jobs_left_where_they_are() -> None:
    world = deleted(jobs=8)
    world.annotations = {"forge-jobs.dev/force-delete": "true"}

    world.look()

    assert world.is_gone
    assert world.queues["mail"].managed_by is None
    assert world.pending or any(pod.running for pod in world.pods.values())


def test_nobodys_namespace_hangs_for_longer_than_ten_minutes_for_a_database_that_is_away() -> None:
    world = deleted()
    world.database_error = Unknown("ConnectionFailed", "Away.")

    world.look()
    assert not world.is_gone
    assert world.condition("DeletionBlocked") == ("True", "DatabaseUnreachable")

    world.time += timedelta(minutes=10).total_seconds()
    world.look()
    assert world.is_gone
    assert "OrphanedRows" in world.said()


def test_a_deletion_that_waits_for_long_jobs_is_not_ended_by_a_database_that_is_away_for_a_moment() -> None:
    world = deleted(jobs=4)
    world.hanging.add(world.version("1").id)
    world.run(3600, every=30, step=10)
    assert world.condition("DeletionBlocked") == ("True", "QueueNotEmpty")

    for _ in range(5):
        world.database_error = Unknown("ConnectionFailed", "Away.")
        world.run(300, every=30, step=10)
        world.database_error = None
        world.run(30, every=30, step=10)

    assert not world.is_gone
    assert "OrphanedRows" not in world.said()


def test_an_object_that_makes_no_sense_waits_no_longer_for_the_database_than_others() -> None:
    world = deleted()
    world.spec = {"paused": "perhaps"}
    world.database_error = Unknown("ConnectionFailed", "Away.")

    world.run(500, every=30, step=10)
    assert not world.is_gone

    world.run(200, every=30, step=10)
    assert world.is_gone


def test_an_object_that_became_invalid_can_still_be_deleted() -> None:
    world = deleted()
    world.spec = {"paused": "perhaps"}

    world.look()

    assert world.is_gone
    assert not [each for each in world.actions if isinstance(each, act.DeleteQueue)]

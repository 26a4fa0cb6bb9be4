"""Configuration reaches workers that run: no pod is restarted for it."""

from tests.e2e.cluster import Cluster
from tests.e2e.database import Database, Line
from tests.e2e.waiting import always, eventually


def test_a_change_of_configuration_reaches_running_workers(space: Cluster, database: Database) -> None:
    queue = space.queue("tuned", {"workers": {"replicas": 2}})
    queue.serves("1", pods=2)
    lives = queue.lives()
    generation = deployment_generation(queue.deployments()["1"])

    free = database.enqueue("tuned", 2, 12)
    database.are_done(free, within=60)
    assert most_at_once(database.ran_once(free)) > 3

    queue.change({"concurrency": {"limit": 3}})
    eventually(lambda: row(database)["concurrency"] == 3, within=30, what="the limit is in the database")
    limited = database.enqueue("tuned", 2, 12)
    database.are_done(limited, within=90)
    assert most_at_once(database.ran_once(limited)) == 3

    queue.change({"paused": True})
    eventually(lambda: row(database)["paused"], within=30, what="the pause is in the database")
    queue.becomes("Paused", "True", "SpecPaused", within=60)
    waiting = database.enqueue("tuned", 0, 5)
    always(lambda: database.states(waiting) == {"pending": 5}, during=6, what="a paused queue starts nothing")

    queue.change({"paused": False, "concurrency": {"limit": None}})
    database.are_done(waiting, within=60)
    database.ran_once(waiting)

    assert queue.lives() == lives, "pods were replaced or restarted"
    assert deployment_generation(queue.deployments()["1"]) == generation


def row(database: Database) -> dict[str, object]:
    """Return the queue's row."""
    return database.rows("SELECT * FROM forge_jobs.queue WHERE name = 'tuned'")[0]


def deployment_generation(deployment: dict[str, dict[str, int]]) -> int:
    """Return how often the Deployment's spec was changed."""
    return deployment["metadata"]["generation"]


def most_at_once(told: list[Line]) -> int:
    """Return how many jobs ran at the moment when most did."""
    running = most = 0
    for line in told:
        running += 1 if line.what == "started" else -1
        most = max(most, running)
    return most

"""Two ForgeQueues for one queue: the first one owns it, the other says so."""

from collections.abc import Callable

from tests.e2e.cluster import Cluster, Operator
from tests.e2e.database import Database
from tests.e2e.shell import CommandFailed
from tests.e2e.waiting import eventually


def test_the_first_of_two_owners_stays(spaces: Callable[[str], Cluster], database: Database) -> None:
    first_space, second_space = spaces("first-owner"), spaces("second-owner")
    first = first_space.queue("owned", {"concurrency": {"limit": 4}})
    first.serves("1")
    lives = first.lives()

    second = second_space.queue("owned", {"concurrency": {"limit": 9}})
    condition = second.becomes("Ready", "False", "QueueNameConflict", within=60)
    assert f"{first_space.namespace}/owned" in condition["message"], condition
    assert not second.pods(), "the second one has workers"
    assert limit(database) == 4
    assert first.becomes("Ready", "True")
    assert first.lives() == lives

    first.remove()
    eventually(lambda: limit(database) == 9, within=90, what="the second one owns the queue")
    second.serves("1")
    job = database.enqueue("owned")
    database.are_done(job, within=60)
    database.ran_once(job)


def test_the_command_line_refuses_to_edit_what_an_object_owns(
    space: Cluster, installed: Cluster, operator: Operator, database: Database
) -> None:
    queue = space.queue("managed", {"concurrency": {"limit": 4}, "workers": None})
    queue.becomes("Ready", "True", within=60)
    edit = ["forge-jobs", "queues", "set", "managed", "--concurrency", "20"]
    try:
        installed.kubectl("exec", "deployment/forge-jobs-operator", "--", *edit)
    except CommandFailed as error:
        assert f"ForgeQueue {space.namespace}/managed" in error.output, error.output
    else:
        raise AssertionError("the command line edited a queue that a ForgeQueue owns")

    # Whoever writes into the table itself is put right.
    database.execute("UPDATE forge_jobs.queue SET concurrency = 20 WHERE name = 'managed'")
    eventually(
        lambda: database.value("SELECT concurrency FROM forge_jobs.queue WHERE name = 'managed'") == 4,
        within=90,
        what="the drift is repaired",
    )


def limit(database: Database) -> object:
    """Return the limit of the queue that both want."""
    return database.value("SELECT concurrency FROM forge_jobs.queue WHERE name = 'owned'")

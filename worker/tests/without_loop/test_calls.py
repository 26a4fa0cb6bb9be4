"""What `forge.sync` does is what a forge does, without an event loop."""

import asyncio
import gc
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import (
    Cancelled,
    Dead,
    Forge,
    InvalidInput,
    InvalidPayload,
    JobDead,
    JobNotFound,
    NotEnqueued,
    Plugin,
    SchemaOutdated,
    Settings,
    State,
    UnknownQueue,
    WaitTimeout,
)
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.job import NewJob
from tests.storage.databases import Database
from tests.without_loop.working import a_worker_of


def test_a_job_is_enqueued_looked_at_and_cancelled(forge: Forge) -> None:
    job = forge.sync.enqueue("send", {"to": "ada"}, priority=3, tags=["mail"])

    found = forge.sync.jobs.get(job)
    assert (found.state, found.priority, found.tags) == (State.PENDING, 3, ("mail",))
    assert [one.id for one in forge.sync.jobs.list(kind="send")] == [job.id]
    assert forge.sync.jobs.why(job).reasons[0] == "No live worker serves queue 'default'."
    assert forge.sync.jobs.cancel(job) is Cancelled.DEAD
    assert forge.sync.jobs.get(job).state is State.DEAD


def test_many_jobs_and_a_batch_wait_or_none(forge: Forge) -> None:
    many = forge.sync.enqueue_many("send", [{"to": "ada"}, {"to": "bob"}])
    batch = forge.sync.enqueue_batch([forge.job("send", {"to": "cyd"}), forge.job("bill", {})])

    assert len({job.id for job in many + batch}) == 4
    with pytest.raises(UnknownQueue):
        forge.sync.enqueue_batch([forge.job("send", {}), forge.job("send", {}, queue="nowhere")])
    assert forge.sync.jobs.count(state=State.PENDING) == 4


def test_thousands_of_jobs_are_enqueued_at_once(forge: Forge) -> None:
    made = forge.sync.enqueue_many("send", [{"number": number} for number in range(3000)])

    assert len({job.id for job in made}) == 3000
    assert forge.sync.jobs.count(state=State.PENDING) == 3000


def test_keys_and_groups_hold(forge: Forge) -> None:
    first = forge.sync.enqueue("send", {"to": "ada"}, key="ada")
    again = forge.sync.enqueue("send", {"to": "ada"}, key="ada")
    replaced = forge.sync.enqueue("send", {"to": "bob"}, key="ada", key_mode="replace")
    grouped = forge.sync.enqueue_many("send", [{}, {}], group="one")

    assert (again.id, again.duplicate) == (first.id, True)
    assert replaced.id == first.id
    states = [forge.sync.jobs.get(job).state for job in grouped]
    assert states == [State.PENDING, State.BLOCKED]


def test_a_handler_checks_its_arguments_and_enqueues_at_once(forge: Forge) -> None:
    @forge.handler(queue="mail", max_attempts=3)
    def send(to: str) -> None: ...

    job = send.enqueue_sync(to="ada")
    later = send.options(delay=60).enqueue_sync("bob")

    found = forge.sync.jobs.get(job)
    assert (found.queue, found.max_attempts) == ("mail", 3)
    assert forge.sync.jobs.get(later).state is State.SCHEDULED
    with pytest.raises(InvalidPayload):
        send.enqueue_sync(frm="ada")  # type: ignore[call-arg]


def test_what_handlers_declare_is_published_by_the_first_call(forge: Forge) -> None:
    @forge.handler(queue="mail", max_attempts=3)
    def send(to: str) -> None: ...

    assert [kind.kind for kind in forge.sync.kinds.list()] == ["send"]
    assert "mail" in [queue.name for queue in forge.sync.queues.list()]


def test_results_are_waited_for(new_forge: Callable[[], Forge], forge: Forge) -> None:
    theirs = new_forge()

    @theirs.handler
    async def double(number: int) -> int:
        if number > 100:
            raise Dead("too large")
        return 2 * number

    with a_worker_of(theirs):
        job = forge.sync.enqueue("double", {"number": 4})
        more = forge.sync.enqueue_many("double", [{"number": 5}, {"number": 1000}])
        assert forge.sync.wait(job, timeout=30) == 8
        assert forge.sync.wait(job.id, returns=float) == 8.0
        results = forge.sync.wait_all(more, return_exceptions=True, timeout=30)
        assert results[0] == 10
        assert isinstance(results[1], JobDead) and "too large" in str(results[1])


def test_who_waits_too_short_is_told_why_the_job_does_not_run(forge: Forge) -> None:
    job = forge.sync.enqueue("double", {"number": 4})

    with pytest.raises(WaitTimeout, match=r"did not end within 0\.05 s: no live worker serves"):
        forge.sync.wait(job, timeout=0.05)
    with pytest.raises(WaitTimeout):
        forge.sync.wait(job, timeout=timedelta(0))
    with pytest.raises(JobNotFound):
        forge.sync.wait(job.id + 1000)


def test_queues_and_limits_are_set(forge: Forge) -> None:
    forge.sync.limits.set("api", capacity=10, refill=1)
    forge.sync.queues.set("mail", concurrency=5, rate_limit="api")
    forge.sync.queues.pause("mail", why="the provider is down")

    queue = forge.sync.queues.get("mail")
    assert (queue.concurrency, queue.rate_limit, queue.paused) == (5, "api", True)
    assert forge.sync.limits.get("api").tokens == 10
    assert forge.sync.queues.delete("mail").changed == 0


def test_jobs_are_changed_all_at_once(forge: Forge) -> None:
    forge.sync.enqueue_many("send", [{}] * 5)

    assert forge.sync.jobs.cancel_all(kind="send").changed == 5
    assert forge.sync.jobs.retry_all(kind="send").changed == 5
    assert forge.sync.jobs.count(state=State.PENDING) == 5


def test_in_an_event_loop_it_is_refused_and_nothing_is_done(forge: Forge) -> None:
    @forge.handler
    def send() -> None: ...

    calls: list[Callable[[], Any]] = [
        lambda: forge.sync.enqueue("send"),
        lambda: forge.sync.jobs.counts(),
        lambda: forge.enqueue_sync("send"),
        lambda: send.enqueue_sync(),
        lambda: forge.sync.wait(1),
        lambda: forge.sync.open(),
    ]

    async def main() -> None:
        for call in calls:
            with pytest.raises(
                InvalidInput, match=r"^forge\.sync is used in an event loop, which would stand"
            ):
                call()
        assert (await asyncio.to_thread(forge.sync.enqueue, "send")).id

    asyncio.run(main())
    assert forge.sync.jobs.count(state=State.PENDING) == 1
    forge.sync.close()

    async def opened_before() -> None:
        with pytest.raises(InvalidInput, match=r"^forge\.sync is used in an event loop"):
            forge.sync.jobs.get(1)

    forge.sync.open()
    asyncio.run(opened_before())


def test_a_plain_handler_uses_it_in_its_thread(new_forge: Callable[[], Forge], forge: Forge) -> None:
    theirs = new_forge()

    @theirs.handler
    def first(number: int) -> int:
        return theirs.sync.enqueue("second", {"number": number}).id

    @theirs.handler
    def second(number: int) -> int:
        return number

    with a_worker_of(theirs):
        made = forge.sync.wait(forge.sync.enqueue("first", {"number": 7}), timeout=30)
        assert forge.sync.wait(made, timeout=30) == 7


def test_threads_share_it(forge: Forge) -> None:
    barrier = threading.Barrier(12)

    def enqueue(number: int) -> list[int]:
        barrier.wait(30)
        return [forge.sync.enqueue("send", {"number": number}).id for _ in range(15)]

    with ThreadPoolExecutor(12) as threads:
        ids = [job_id for made in threads.map(enqueue, range(12)) for job_id in made]

    assert len(set(ids)) == 180
    assert forge.sync.jobs.count(state=State.PENDING) == 180


class Pausing(Plugin):
    """Awaits what it is not given, before or after it sends."""

    def __init__(self, *, before: bool) -> None:
        self._before = before

    async def around_enqueue(self, jobs: Sequence[NewJob], call: Any) -> None:
        if self._before:
            await asyncio.sleep(0)
        await call()
        await asyncio.sleep(0)


def test_a_plugin_that_awaits_something_else_is_named_and_nothing_is_enqueued(forge: Forge) -> None:
    forge.plugins.use(Pausing(before=True))

    with pytest.raises(NotEnqueued, match=r"around_enqueue failed: .*awaits something without an event loop"):
        forge.sync.enqueue("send")
    assert forge.sync.jobs.counts()[0].pending == 0


def test_a_plugin_that_awaits_something_after_it_sent_takes_no_answer_away(forge: Forge) -> None:
    forge.plugins.use(Pausing(before=False))

    made = forge.sync.enqueue("send")

    assert forge.sync.jobs.get(made).kind == "send"


def test_closed_it_opens_again_by_the_next_call(forge: Forge) -> None:
    with forge.sync as sync:
        sync.enqueue("send")

    assert forge.sync.enqueue("send").id
    assert forge.sync.jobs.count(state=State.PENDING) == 2


def test_a_call_that_nobody_awaits_names_its_twin(forge: Forge) -> None:
    @forge.handler
    async def send(to: str) -> None: ...

    with pytest.warns(
        RuntimeWarning, match=r"write: await forge\.enqueue\(\.\.\.\), or.*forge\.sync\.enqueue"
    ):
        not_awaited = send.enqueue(to="ada")
        del not_awaited
        gc.collect()

    assert forge.sync.jobs.counts()[0].pending == 0


def test_a_forge_that_was_given_a_storage_has_no_sync(database: Database) -> None:
    with pytest.raises(InvalidInput, match="a Forge that was given a storage, allowed is one with a URL"):
        Forge(storage=database.storage()).sync.enqueue("send")


def test_where_nobody_may_migrate_it_is_said(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.sqlite"
    forge = Forge(settings=Settings.load({"FORGE_DATABASE_URL": url, "FORGE_AUTO_MIGRATE": "false"}))

    with pytest.raises(SchemaOutdated, match="run: forge-jobs db migrate"):
        forge.sync.enqueue("send")


def test_a_new_file_is_made_by_the_first_call(tmp_path: Path) -> None:
    forge = Forge(f"sqlite:///{tmp_path}/jobs/new.sqlite")

    assert forge.sync.enqueue("send").id == 1


def test_a_database_in_memory_is_that_of_its_threads() -> None:
    forge = Forge("sqlite://:memory:")
    forge.sync.enqueue("send")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: forge.sync.enqueue("send"), range(20)))

    assert forge.sync.jobs.count(state=State.PENDING) == 21


def test_a_server_that_is_away_is_said_and_nothing_stays_behind() -> None:
    forge = Forge("postgresql://nobody@127.0.0.1:1/nowhere")

    for _ in range(10):  # more often than there are connections
        with pytest.raises(StorageUnavailable, match="cannot be reached"):
            forge.sync.enqueue("send")

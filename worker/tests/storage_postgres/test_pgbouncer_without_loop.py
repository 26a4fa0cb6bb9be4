"""Behind PgBouncer, a program without an event loop does all that it does elsewhere."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from forge_jobs import Context, Flow, Forge, Signalled, State
from tests.storage_postgres.test_pgbouncer import PGBOUNCER, Start, bouncer
from tests.without_loop.working import a_worker_of

__all__ = ["bouncer"]  # the fixture

pytestmark = [
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
    pytest.mark.parametrize("mode", ["transaction", "session"]),
]


@pytest.fixture
def program(bouncer: Start, mode: str) -> Iterator[Callable[..., Forge]]:
    """Return a Forge behind a PgBouncer of this mode, with so many connections to the server."""
    made: list[Forge] = []

    def program(size: int = 5) -> Forge:
        made.append(Forge(bouncer(mode, size=size)))
        return made[-1]

    yield program
    for forge in made:
        forge.sync.close()


def declared(forge: Forge) -> tuple[Any, Any]:
    @forge.handler
    async def fulfil(ctx: Context, order: int) -> str:
        return f"order {order} by {await ctx.wait_for('approved')}"

    @forge.handler
    def double(number: int) -> int:
        return 2 * number

    return fulfil, double


def test_jobs_signals_flows_and_results_pass(program: Callable[..., Forge], url: str) -> None:
    forge, theirs = program(), Forge(url)
    _, double = declared(forge)
    declared(theirs)

    with a_worker_of(theirs):
        order = forge.sync.enqueue("fulfil", {"order": 7})
        numbers = forge.sync.enqueue_many("double", [{"number": number} for number in range(300)])
        flow = forge.sync.flows.start(Flow("four").and_then(double).and_then(double, name="again"), 1)
        assert forge.sync.signal("approved", "ada", job=order) in (Signalled.WOKEN, Signalled.KEPT)
        assert forge.sync.wait_all(numbers, timeout=60) == [2 * number for number in range(300)]
        assert forge.sync.flows.wait(flow, timeout=60) == {"again": 4}
        assert forge.sync.wait(order, timeout=60) == "order 7 by ada"

    assert not forge.sync.storage.ends.are_told  # it may become one that shares connections at any time
    assert forge.sync.jobs.why(order).reasons
    assert forge.sync.queues.set("default", concurrency=5).concurrency == 5


def test_more_threads_than_connections_enqueue(program: Callable[..., Forge], mode: str) -> None:
    forge = program(size=4 if mode == "session" else 1)

    with ThreadPoolExecutor(12) as threads:
        made = list(
            threads.map(
                lambda number: forge.sync.enqueue("send", {"number": number}, key=f"{number % 40}"),
                range(120),
            )
        )

    assert len({job.id for job in made}) == 40
    assert forge.sync.jobs.count(state=State.PENDING) == 40


@pytest.mark.parametrize("commits", [True, False])
def test_a_callers_transaction_past_the_pooler_holds_jobs_and_signals(
    program: Callable[..., Forge], commits: bool
) -> None:
    forge = program()
    job = forge.sync.enqueue("send")

    with psycopg.connect(forge.settings.database_url if forge._url is None else forge._url) as connection:
        connection.prepare_threshold = None
        forge.sync.enqueue("bill", connection=connection)
        assert forge.sync.signal("approved", job=job, connection=connection) is Signalled.KEPT
        if not commits:
            connection.rollback()

    kinds = [one.kind for one in forge.sync.jobs.list()]
    assert sorted(kinds) == (["bill", "send"] if commits else ["send"])
    assert len(forge.sync.jobs.get(job).signals) == commits


def test_no_setting_of_ours_is_left_to_other_clients(program: Callable[..., Forge], mode: str) -> None:
    forge = program(size=4 if mode == "session" else 1)
    for _ in range(3):
        forge.sync.enqueue("send")
        forge.sync.jobs.counts()
    assert forge._url is not None

    with psycopg.connect(forge._url) as connection:
        settings = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("statement_timeout", "lock_timeout", "enable_seqscan", "synchronous_commit")
        ]

    assert settings == [("0",), ("0",), ("on",), ("on",)]

"""Signals are sent without an event loop, also in a caller's transaction."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from forge_jobs import Context, Forge, InvalidInput, Settings, Signalled
from forge_jobs.errors import InvalidToken
from tests.storage.databases import Database
from tests.without_loop.working import a_worker_of

SECRET = "a secret of thirty-two characters"


@contextmanager
def a_connection_to(database: Database) -> Iterator[Any]:
    """Give a caller's own connection, which begins transactions by itself."""
    made: Any
    if database.url.startswith("sqlite:"):
        made = sqlite3.connect(database.url.removeprefix("sqlite:///"))
    else:
        made = psycopg.connect(database.url)
    with closing(made):
        yield made


def test_a_waiting_job_goes_on_by_a_signal(new_forge: Callable[[], Forge], forge: Forge) -> None:
    theirs = new_forge()

    @theirs.handler
    async def fulfil(ctx: Context, order: int) -> str:
        approval = await ctx.wait_for("approved")
        return f"order {order} by {approval['by']}"

    with a_worker_of(theirs):
        job = forge.sync.enqueue("fulfil", {"order": 7})
        assert forge.sync.signal("approved", {"by": "ada"}, job=job) in (Signalled.WOKEN, Signalled.KEPT)
        assert forge.sync.wait(job, timeout=30) == "order 7 by ada"
        assert forge.sync.signal("approved", job=job) is Signalled.ENDED


def test_jobs_with_a_key_and_with_a_tag_are_signalled(forge: Forge) -> None:
    keyed = forge.sync.enqueue("fulfil", key="order 7")
    tagged = forge.sync.enqueue_many("fulfil", [{}, {}], tags=["night"])

    assert forge.sync.signal("stop", kind="fulfil", key="order 7") is Signalled.KEPT
    assert forge.sync.signal("stop", kind="fulfil", key="order 8") is Signalled.UNKNOWN
    assert forge.sync.signal("stop", tag="night") == {job.id: Signalled.KEPT for job in tagged}
    assert forge.sync.signal("stop", job=keyed) is Signalled.DUPLICATE


def test_a_signal_to_nobody_is_refused(forge: Forge) -> None:
    with pytest.raises(InvalidInput, match="allowed is exactly one of job, key and tag"):
        forge.sync.signal("stop")  # type: ignore[call-overload]


@pytest.mark.parametrize("commits", [True, False])
def test_in_a_callers_transaction_it_is_sent_when_that_commits(
    database: Database, new_forge: Callable[[], Forge], forge: Forge, commits: bool
) -> None:
    job = forge.sync.enqueue("fulfil")
    fresh = new_forge()  # the first call of a process must not open what the transaction holds

    with a_connection_to(database) as connection:
        fresh.sync.enqueue("fulfil", connection=connection)
        assert fresh.sync.signal("approved", 1, job=job, connection=connection) is Signalled.KEPT
        if commits:
            connection.commit()
        else:
            connection.rollback()

    assert forge.sync.signal("approved", job=job) is (Signalled.DUPLICATE if commits else Signalled.KEPT)


def test_a_connection_that_has_to_be_awaited_is_refused(forge: Forge) -> None:
    job = forge.sync.enqueue("fulfil")

    class Awaited:
        async def commit(self) -> None: ...

    with pytest.raises(InvalidInput, match=r"allowed in forge\.sync is one whose calls are not awaited"):
        forge.sync.signal("approved", job=job, connection=Awaited())


def test_a_callback_token_sends_once(database: Database) -> None:
    settings = Settings.load({"FORGE_DATABASE_URL": database.url, "FORGE_CALLBACK_SECRETS": SECRET})
    forge = Forge(settings=settings)
    job = forge.sync.enqueue("fulfil")

    token = forge.sync.callback_token(job, "approved", expires=timedelta(hours=1))

    assert (forge.sync.read_callback(token).job_id, forge.sync.read_callback(token).signal) == (
        job.id,
        "approved",
    )
    assert forge.sync.signal_by_token(token, {"by": "ada"}) is Signalled.KEPT
    assert forge.sync.signal_by_token(token) is Signalled.USED
    with pytest.raises(InvalidToken, match="was changed"):
        forge.sync.signal_by_token("x" + token)
    forge.sync.close()


def test_in_an_event_loop_signals_and_flows_are_refused(forge: Forge) -> None:
    async def main() -> None:
        for call in (lambda: forge.sync.signal("stop", job=1), lambda: forge.sync.flows.get(1)):
            with pytest.raises(InvalidInput, match=r"^forge\.sync is used in an event loop"):
                call()

    asyncio.run(main())

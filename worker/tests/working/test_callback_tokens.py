"""A callback token sends one signal to one job, to the one for which it was made."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import (
    ClaimLost,
    Context,
    Forge,
    InvalidInput,
    InvalidSetting,
    InvalidToken,
    Settings,
    Signalled,
)
from forge_jobs.model.job import Postponement, Reason
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.working.test_context import run

HOUR = timedelta(hours=1)

SECRETS = ("a secret of at least 32 characters", "an older one of at least 32 characters")


@pytest.fixture
async def signing(database: Database) -> AsyncIterator[Forge]:
    """A Forge that signs callback tokens."""
    settings = Settings.load({"FORGE_CALLBACK_SECRETS": ", ".join(SECRETS)})
    async with Forge(storage=database.storage(), settings=settings) as forge:
        yield forge


async def test_a_callback_token_sends_its_signal_once(signing: Forge) -> None:
    tokens: list[str] = []

    @signing.handler
    async def order(ctx: Context) -> Any:
        tokens.append(await ctx.callback_token("approved", expires=HOUR))
        return await ctx.wait_for("approved")

    job = await order.enqueue()
    await run(signing)
    callback = await signing.read_callback(tokens[0])
    assert (callback.job_id, callback.signal) == (job.id, "approved")
    assert await signing.signal_by_token(tokens[0], "by mail") is Signalled.WOKEN
    assert await signing.signal_by_token(tokens[0], "again") is Signalled.USED
    await run(signing)
    assert await signing.wait(job, timeout=30) == "by mail"
    for token in tokens:  # the second attempt made another one, which is for the same
        assert await signing.signal_by_token(token) is Signalled.ENDED


async def test_a_plain_handler_gets_its_callback_token_at_once(signing: Forge) -> None:
    @signing.handler
    def order(ctx: Context) -> str:
        token: Any = ctx.callback_token("approved", expires=60)
        return str(token)

    job = await order.enqueue()
    await run(signing)
    assert (await signing.read_callback(await signing.wait(job, timeout=30))).job_id == job.id


async def test_tokens_for_other_uses_send_beside_each_other(signing: Forge) -> None:
    @signing.handler
    async def order(ctx: Context) -> list[Any]:
        return [await ctx.wait_for("approved", step=step) for step in ("first", "second")]

    job = await signing.enqueue("order")
    boss, cfo = [
        await signing.callback_token(job, "approved", expires=60, use=use) for use in ("boss", "cfo")
    ]
    assert await signing.signal_by_token(boss, "boss") is Signalled.KEPT
    assert await signing.signal_by_token(boss, "again") is Signalled.USED
    assert await signing.signal_by_token(cfo, "cfo") is Signalled.KEPT
    await run(signing)
    assert await signing.wait(job, timeout=30) == ["boss", "cfo"]


async def test_a_token_without_a_use_of_its_own_sends_no_signal_a_second_time(signing: Forge) -> None:
    job = await signing.enqueue("order")
    token = await signing.callback_token(job, "approved", expires=60)
    assert await signing.signal("approved", job=job) is Signalled.KEPT
    assert await signing.signal_by_token(token) is Signalled.DUPLICATE


async def test_a_token_that_is_not_ours_or_too_old_sends_nothing(signing: Forge, clock: Clock) -> None:
    job = await signing.enqueue("order")
    token = await signing.callback_token(job, "approved", expires=60)
    body, _, signature = token.partition(".")
    other = await signing.callback_token(job.id + 1, "approved", expires=60)
    for wrong in (
        "",
        "x",
        body,
        f"{body}.",
        f".{signature}",
        f"{other.partition('.')[0]}.{signature}",
        "ü.ü",
        "x" * 5000,
        None,
        7,
    ):
        with pytest.raises(InvalidToken) as caught:
            await signing.signal_by_token(wrong)  # type: ignore[arg-type]
        assert str(caught.value).startswith("The callback token is refused: it ")
    await clock.advance(seconds=61)
    with pytest.raises(InvalidToken, match="it has expired on 20"):
        await signing.signal_by_token(token)
    assert await signing.storage.signals.of_job(job.id) == []
    with pytest.raises(InvalidInput, match="expires"):
        await signing.callback_token(job, "approved", expires=-1)


async def test_a_token_of_an_older_secret_is_accepted_and_of_none_refused(
    signing: Forge, database: Database
) -> None:
    job = await signing.enqueue("order")
    older = Settings.load({"FORGE_CALLBACK_SECRETS": SECRETS[1]})
    async with Forge(storage=database.storage(), settings=older) as before:
        token = await before.callback_token(job, "approved", expires=60)
        newest = await signing.callback_token(job, "approved", expires=60)
        with pytest.raises(InvalidToken, match="it was not signed here"):
            await before.read_callback(newest)
    assert (await signing.read_callback(token)).job_id == job.id
    async with Forge(storage=database.storage()) as none:
        with pytest.raises(InvalidToken, match="FORGE_CALLBACK_SECRETS is not set"):
            await none.read_callback(token)


def test_a_secret_that_is_too_short_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidSetting) as caught:
        Settings.load({"FORGE_CALLBACK_SECRETS": "hunter2"})
    assert "hunter2" not in str(caught.value) and "32 characters" in str(caught.value)
    assert SECRETS[0] not in repr(Settings.load({"FORGE_CALLBACK_SECRETS": SECRETS[0]}))


@pytest.mark.parametrize("mode", ["replace", "preserve_run_at", "merge"])
async def test_a_token_is_for_one_job_and_not_for_another_that_takes_its_place(
    signing: Forge, mode: str
) -> None:
    asked = {"key": "order:7", "key_mode": mode}
    payload: Any = ["one"] if mode == "merge" else {}
    job = await signing.enqueue("order", payload, **asked)
    used, unused = [
        await signing.callback_token(job, "approved", expires=HOUR, use=use) for use in ("boss", "cfo")
    ]
    assert await signing.signal_by_token(used, "for the first") is Signalled.KEPT

    assert (await signing.enqueue("order", payload, **asked)).id == job.id

    for token in (used, unused):
        assert await signing.signal_by_token(token, "for the first") is Signalled.REPLACED
    assert await signing.storage.signals.of_job(job.id) == []
    fresh = await signing.callback_token(job, "approved", expires=HOUR, use="boss")
    assert await signing.signal_by_token(fresh, "for the second") is Signalled.KEPT
    assert await signing.signal_by_token(fresh) is Signalled.USED


async def test_a_handler_that_was_taken_for_lost_makes_no_token_for_the_job_in_its_place(
    signing: Forge,
) -> None:
    caught: list[Exception] = []

    @signing.handler
    async def order(ctx: Context) -> None:
        taken_back = Postponement(ctx.claim, Reason.RETRY, delay=HOUR, error="worker lost")
        assert await signing.storage.claims.postpone([taken_back]) == []
        try:
            await ctx.callback_token("approved", expires=HOUR)
        except ClaimLost as error:
            caught.append(error)
            await signing.storage.jobs.cancel(ctx.job_id)

    await order.enqueue()
    await run(signing)
    assert len(caught) == 1


async def test_a_token_for_a_job_of_a_transaction_is_for_what_that_makes_of_it(
    signing: Forge, database: Database
) -> None:
    job = await signing.enqueue("order", key="order:7")
    async with database.transaction() as connection:
        await signing.enqueue("order", key="order:7", key_mode="replace", connection=connection)
        token = await signing.callback_token(job, "approved", expires=HOUR, connection=connection)

    assert await signing.signal_by_token(token) is Signalled.KEPT


async def test_a_token_of_another_database_is_refused(signing: Forge, tmp_path: Path) -> None:
    settings = Settings.load({"FORGE_CALLBACK_SECRETS": SECRETS[0]})
    async with Forge(f"sqlite:///{tmp_path}/other.sqlite", settings=settings) as other:
        job = await signing.enqueue("order")
        assert (await other.enqueue("order")).id
        theirs = await other.callback_token(job, "approved", expires=HOUR)
        for call in (signing.read_callback, signing.signal_by_token):
            with pytest.raises(InvalidToken, match="it is for a job of another database"):
                await call(theirs)
        assert (await other.read_callback(theirs)).job_id == job.id
    assert await signing.storage.signals.of_job(job.id) == []


@pytest.mark.parametrize(("given", "said"), [(" , ", "no secret"), (40 * "hunter2\udcff", "not UTF-8")])
def test_secrets_that_cannot_sign_are_refused_and_not_shown(given: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said) as caught:
        Settings.load({"FORGE_CALLBACK_SECRETS": given})
    assert "hunter2" not in repr(caught.value)

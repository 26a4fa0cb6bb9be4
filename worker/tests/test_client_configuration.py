"""`forge.queues`, `forge.crons`, `forge.limits` and `forge.workers`: what is allowed, and what is refused unchanged."""

import math
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge, Worker
from forge_jobs.errors import (
    InvalidCron,
    InvalidInput,
    InvalidPayload,
    Managed,
    UnknownCron,
    UnknownQueue,
    UnknownScope,
)
from forge_jobs.model.job import FOREVER
from forge_jobs.testing import run_due_jobs, use_test_database


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:
        await forge.queues.ensure("mail")
        yield forge


async def test_a_queue_takes_timedeltas_and_seconds_and_none(forge: Forge):
    mail = await forge.queues.set(
        "mail",
        concurrency=3,
        backoff_base=5,
        backoff_max=timedelta(hours=1),
        max_attempts=None,
        done_retention=0,
    )

    assert mail == await forge.queues.get("mail")
    assert (mail.concurrency, mail.max_attempts) == (3, FOREVER)
    assert (mail.backoff_base, mail.backoff_max) == (timedelta(seconds=5), timedelta(hours=1))
    assert mail.done_retention == timedelta(0)
    assert (await forge.queues.set("mail", concurrency=None)).concurrency is None


async def test_a_queue_takes_a_timeout_and_a_rate_limit_and_gives_them_up(forge: Forge):
    await forge.limits.set("slack", 5, per=60)

    mail = await forge.queues.set("mail", timeout=90, rate_limit="slack")
    assert (mail.timeout, mail.rate_limit) == (timedelta(seconds=90), "slack")

    mail = await forge.queues.set("mail", timeout=None, rate_limit=None)
    assert mail == await forge.queues.get("mail")
    assert (mail.timeout, mail.rate_limit) == (None, None)


async def test_a_queue_lets_jobs_rise_and_ceases_to(forge: Forge):
    assert (await forge.queues.set("mail", age_after=90)).age_after == timedelta(seconds=90)
    assert (await forge.queues.set("mail", age_after=None)).age_after is None


@pytest.mark.parametrize(
    "changes",
    [
        {"concurency": 3},
        {"timeout": 0},
        {"timeout": timedelta(seconds=-1)},
        {"timeout": "90s"},
        {"age_after": 0},
        {"age_after": 0.5},
        {"age_after": "10m"},
        {"age_after": True},
        {"rate_limit": "nowhere"},
        {"rate_limit": "a b"},
        {"rate_limit": 3},
        {"paused": True, "rate_limit": "nowhere"},
        {"concurrency": -1},
        {"concurrency": "3"},
        {"concurrency": True},
        {"concurrency": 10**9},
        {"paused": "yes"},
        {"paused_until": datetime(2030, 1, 1, tzinfo=UTC)},
        {"paused": False, "pause_reason": "for fun"},
        {"paused": True, "paused_until": datetime(2030, 1, 1)},
        {"paused": True, "paused_until": 60},
        {"paused": True, "pause_reason": "two\nlines"},
        {"backoff_enabled": 1},
        {"backoff_base": -1},
        {"backoff_base": "10s"},
        {"backoff_base": math.nan},
        {"backoff_base": timedelta(hours=2)},
        {"backoff_max": 1},
        {"max_attempts": -1},
        {"max_attempts": 2.0},
        {"done_retention": timedelta(seconds=-1)},
        {"dead_retention": None},
        {"paused": True, "concurrency": -1},
    ],
)
async def test_a_queue_refuses_what_is_not_allowed_and_stays_as_it_is(forge: Forge, changes: dict[str, Any]):
    before = await forge.queues.get("mail")

    with pytest.raises(InvalidInput) as refused:
        await forge.queues.set("mail", **changes)

    assert str(refused.value).endswith(".")
    assert await forge.queues.get("mail") == before


@pytest.mark.parametrize("name", ["", "a b", "a,b", "x" * 129, None, 3])
async def test_a_queue_needs_a_name(forge: Forge, name: Any):
    with pytest.raises(InvalidInput, match="The queue is"):
        await forge.queues.set(name, paused=True)
    with pytest.raises(InvalidInput, match="The queue is"):
        await forge.queues.ensure("good", name)

    assert [queue.name for queue in await forge.queues.list()] == ["default", "mail"]


async def test_a_pause_is_given_an_end_as_a_moment_or_as_a_time(forge: Forge):
    now = await forge.storage.now()

    until = (
        await forge.queues.pause("mail", until=timedelta(hours=2), why="the bank is closed")
    ).paused_until
    assert until is not None
    assert timedelta(hours=2) <= until - now < timedelta(hours=3)

    moment = now.replace(microsecond=0) + timedelta(days=1)
    paused = await forge.queues.pause("mail", until=moment)
    assert (paused.paused_until, paused.pause_reason) == (moment, None)

    resumed = await forge.queues.resume("mail")
    assert (resumed.paused, resumed.paused_until) == (False, None)


async def test_a_pause_cannot_end_in_the_past(forge: Forge):
    with pytest.raises(
        InvalidInput, match=r"until is 2020-01-01 00:00:00 UTC, allowed is a moment after now"
    ):
        await forge.queues.pause("mail", until=datetime(2020, 1, 1, tzinfo=UTC))

    assert not (await forge.queues.get("mail")).paused


async def test_what_belongs_to_another_is_not_changed(forge: Forge):
    await forge.storage.queues.manage("mail", "operator")

    for call in (forge.queues.pause, forge.queues.resume):
        with pytest.raises(Managed):
            await call("mail")
    assert (await forge.queues.set("mail", paused=True, managed_by="operator")).paused


async def test_unknown_names_are_said_with_the_known_ones(forge: Forge):
    with pytest.raises(UnknownQueue, match="queues: default, mail"):
        await forge.queues.pause("nix")
    with pytest.raises(UnknownScope, match="rate limits: none"):
        await forge.queues.set("mail", rate_limit="nix")
    with pytest.raises(UnknownScope, match="rate limits: none"):
        await forge.limits.get("nix")
    with pytest.raises(UnknownCron, match="crons: none"):
        await forge.crons.enable("nix")


async def test_a_cron_is_configured_and_fires_by_hand(forge: Forge):
    await forge.crons.set(
        "nightly", "0 3 * * *", "clean_up", payload={"deep": True}, queue="mail", max_attempts=None
    )

    [cron] = await forge.crons.list()
    assert (cron.payload, cron.queue, cron.max_attempts, cron.timezone) == (
        b'{"deep":true}',
        "mail",
        FOREVER,
        "UTC",
    )
    job = await forge.jobs.get((await forge.crons.trigger("nightly")).id)
    assert (job.kind, job.queue, job.payload) == ("clean_up", "mail", b'{"deep":true}')


@pytest.mark.parametrize(
    ("expression", "values", "error"),
    [
        ("* * *", {}, InvalidCron),
        ("61 * * * *", {}, InvalidCron),
        ("", {}, InvalidCron),
        (None, {}, InvalidCron),
        ("0 0 30 2 *", {}, InvalidCron),
        ("@daily", {"timezone": "Mars/Olympus"}, InvalidCron),
        ("@daily", {"timezone": "../etc/passwd"}, InvalidCron),
        ("@daily", {"queue": "nix"}, UnknownQueue),
        ("@daily", {"queue": "a b"}, InvalidInput),
        ("@daily", {"payload": 1}, InvalidInput),
        ("@daily", {"key": "k", "key_mode": "merge"}, InvalidInput),
        ("@daily", {"payload": {"a": object()}}, InvalidPayload),
        ("@daily", {"codec": "morse"}, InvalidInput),
        ("@daily", {"priority": 40_000}, InvalidInput),
        ("@daily", {"timeout": -1}, InvalidInput),
        ("@daily", {"missed": "some"}, InvalidInput),
        ("@daily", {"missed_limit": 0}, InvalidInput),
        ("@daily", {"missed_within": 0}, InvalidInput),
        ("@daily", {"missed_within": 60, "missed": "skip"}, InvalidInput),
        ("@daily", {"key": "k", "overlap": False}, InvalidInput),
        ("@daily", {"key_mode": "replace"}, InvalidInput),
        ("@daily", {"tags": [f"tag-{number}" for number in range(11)]}, InvalidInput),
        ("@daily", {"overlap": 1}, InvalidInput),
        ("@daily", {"delay": 5}, InvalidInput),
        ("@daily", {"colour": "red"}, InvalidInput),
    ],
)
async def test_a_cron_that_cannot_be_is_refused(
    forge: Forge, expression: Any, values: Any, error: type[Exception]
):
    with pytest.raises(error) as refused:
        await forge.crons.set("c", expression, "k", **values)

    assert str(refused.value).endswith(".")
    assert await forge.crons.list() == []


async def test_a_cron_that_was_disabled_keeps_its_configuration(forge: Forge):
    made = await forge.crons.set("c", "@daily", "k", priority=7)

    assert (await forge.crons.disable("c")).enabled is False
    enabled = await forge.crons.enable("c")

    assert (enabled.enabled, enabled.priority, enabled.expression) == (True, 7, made.expression)


async def test_a_cron_fires_from_the_moment_when_it_was_set():
    forge, midnight = Forge("sqlite://:memory:"), datetime(2030, 1, 2, tzinfo=UTC)
    async with use_test_database(forge, now=datetime(2030, 1, 1, 12, tzinfo=UTC)) as clock:
        assert (await forge.crons.set("c", "@daily", "k")).next_fire_at == midnight
        await forge.crons.ensure("d", "@daily", "k")
        assert (await forge.crons.get("d")).next_fire_at == midnight

        clock.advance(days=3)
        assert (await forge.crons.set("c", "@daily", "k", priority=2)).next_fire_at == midnight


async def test_a_cron_that_is_changed_or_enabled_fires_from_that_moment():
    forge = Forge("sqlite://:memory:")
    async with use_test_database(forge, now=datetime(2030, 1, 1, 12, tzinfo=UTC)) as clock:
        await forge.crons.set("c", "@daily", "k")
        clock.advance(days=3)

        changed = await forge.crons.set("c", "@hourly", "k")
        assert changed.next_fire_at == datetime(2030, 1, 4, 13, tzinfo=UTC)
        assert (await forge.crons.disable("c")).next_fire_at is None
        clock.advance(hours=2)
        assert (await forge.crons.enable("c")).next_fire_at == datetime(2030, 1, 4, 15, tzinfo=UTC)


async def test_a_cron_of_another_is_not_changed(forge: Forge):
    await forge.crons.set("c", "@daily", "k", managed_by="operator")

    with pytest.raises(Managed):
        await forge.crons.set("c", "@hourly", "k")
    with pytest.raises(Managed):
        await forge.crons.disable("c")
    with pytest.raises(Managed):
        await forge.crons.delete("c")
    assert (await forge.crons.get("c")).expression == "@daily"


async def test_a_rate_limit_is_refilled_per_time_or_by_second(forge: Forge):
    assert (await forge.limits.set("slack", 60, per=timedelta(minutes=1))).refill == 1
    assert (await forge.limits.set("slack", 60, per=30)).refill == 2
    assert (await forge.limits.set("slack", capacity=60, refill=0.5)).refill == 0.5
    assert (await forge.limits.set("once", 3, refill=0)).tokens == 3


@pytest.mark.parametrize(
    "values",
    [
        {"capacity": 0, "refill": 1},
        {"capacity": 0.5, "refill": 1},
        {"capacity": math.inf, "refill": 1},
        {"capacity": "5", "refill": 1},
        {"capacity": 5},
        {"capacity": 5, "per": 1, "refill": 1},
        {"capacity": 5, "per": 0},
        {"capacity": 5, "per": -1},
        {"capacity": 5, "per": "1m"},
        {"capacity": 5, "refill": -1},
        {"capacity": 5, "refill": math.nan},
        {"capacity": 5, "refill": True},
    ],
)
async def test_a_rate_limit_that_cannot_be_is_refused(forge: Forge, values: dict[str, Any]):
    with pytest.raises(InvalidInput) as refused:
        await forge.limits.set("slack", **values)

    assert str(refused.value).endswith(".")
    assert await forge.limits.list() == []


async def test_a_rate_limit_that_is_ensured_keeps_its_numbers(forge: Forge):
    await forge.limits.ensure("slack", 5, refill=1)
    await forge.limits.ensure("slack", 50, refill=10)

    assert (await forge.limits.get("slack")).capacity == 5


async def test_a_rate_limit_that_was_emptied_is_empty(forge: Forge):
    await forge.limits.set("slack", 5, refill=0)

    await forge.limits.empty("slack")

    assert (await forge.limits.get("slack")).tokens == 0


async def test_without_workers_nobody_leads(forge: Forge):
    assert await forge.workers.list() == []
    assert await forge.workers.leader() is None


@pytest.mark.parametrize("given", ["mail", b"mail", {"mail": 1}, "", {}])
async def test_no_call_takes_a_text_or_a_mapping_for_a_list(forge: Forge, given: Any):
    @forge.handler
    async def send() -> None: ...

    calls: list[Callable[[], Any]] = [
        lambda: Worker(forge, queues=given),
        lambda: Worker(Forge(settings=replace(forge.settings, queues=given))),
        lambda: forge.watch(given),
        lambda: forge.enqueue_many("send", given),
        lambda: send.enqueue_many(given),
        lambda: send.options(priority=1).enqueue_many(given),
        lambda: forge.versions.cordon(given, True, epoch=1),
        lambda: run_due_jobs(forge, queues=given),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match=r"^\w+ is .*, allowed is a list\.$"):
            answer = call()
            await answer
    assert await forge.jobs.list() == []


@pytest.mark.parametrize("given", [["mail"], ("mail", "news"), None, 5])
async def test_no_call_takes_a_list_for_a_name(forge: Forge, given: Any):
    for call in (forge.queues.ensure, forge.ensure_queues):
        with pytest.raises(InvalidInput, match=r"^The queue is .*, allowed are 1 to 128"):
            await call(given)


async def test_the_payload_of_a_cron_may_be_a_list_of_items(forge: Forge):
    await forge.crons.set("daily", "@daily", "notify", payload=["a"], key="today", key_mode="merge")

    [cron] = await forge.crons.list()
    assert cron.payload == b'["a"]'


@pytest.mark.parametrize("payload", ["", 0, False])
async def test_the_payload_of_a_cron_is_a_mapping_or_a_list(forge: Forge, payload: Any):
    with pytest.raises(InvalidInput, match="allowed is a mapping of argument names"):
        await forge.crons.set("daily", "@daily", "send", payload=payload)


@pytest.mark.parametrize(
    "given", [{"url": ""}, {"url": "sqlite://:memory:x"}, {"url": "postgresql://h/d", "schema": ""}]
)
def test_a_database_that_is_given_and_cannot_be_is_not_exchanged_for_another(given: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"^The (database URL|schema) is "):
        _ = Forge(**given).storage

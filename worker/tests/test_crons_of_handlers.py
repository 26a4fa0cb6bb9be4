"""The jobs of a cron are as those of a call: in the groups, of the tenant, and unique as their handler says of their arguments."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Cron, Forge, Group, InvalidInput, KeyMode, State, UnfitPayload, Unique
from forge_jobs.client.document import document
from forge_jobs.model.kind import Kind
from forge_jobs.rules.cron_declarations import read, written
from forge_jobs.telemetry import Event


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    forge = Forge(f"sqlite:///{tmp_path / 'jobs.db'}")

    @forge.handler(group=lambda customer: Group(f"customer:{customer}", 2), tags=["money"])
    async def bill(customer: int = 1) -> None: ...

    @forge.handler(fair_by="customer")
    async def report(customer: int) -> None: ...

    @forge.handler(unique=Unique("customer"))
    async def refresh(customer: int, force: bool = False) -> None: ...

    @forge.handler(singleton=True)
    async def watch() -> None: ...

    async with forge:
        yield forge


async def test_a_cron_has_the_group_that_the_handler_says_of_its_arguments(forge: Forge) -> None:
    cron = await forge.crons.set("monthly", "@monthly", "bill", payload={"customer": 42})

    assert cron.group == (Group("customer:42", 2),)
    assert cron.tags == ("money",)
    enqueued = await forge.handlers["bill"].enqueue(customer=42)
    triggered = await forge.jobs.get(await forge.crons.trigger("monthly"))
    assert (await forge.jobs.get(enqueued)).groups == triggered.groups


async def test_arguments_that_it_leaves_out_have_their_defaults(forge: Forge) -> None:
    assert (await forge.crons.set("monthly", "@monthly", "bill")).group == (Group("customer:1", 2),)


async def test_a_cron_has_the_tenant_that_the_handler_says(forge: Forge) -> None:
    cron = await forge.crons.set("weekly", "@weekly", "report", payload={"customer": 42})

    assert cron.tenant == "42"


async def test_what_the_cron_says_counts_instead(forge: Forge) -> None:
    none = await forge.crons.set("a", "@daily", "bill", group=(), tenant=7)
    other = await forge.crons.set("b", "@daily", "bill", group=["x", Group("y", 3)], tags=())
    of_cron = await forge.crons.set("c", "@daily", "bill", group=lambda customer: f"c:{customer}")

    assert (none.groups, none.tenant) == (None, "7")
    assert (other.group, other.tags) == ((Group("x"), Group("y", 3)), ())
    assert of_cron.group == (Group("c:1"),)


@pytest.mark.parametrize(
    ("kind", "option"),
    [("bill", "group"), ("report", "tenant"), ("refresh", "key"), ("refresh", "unique"), ("watch", "key")],
)
async def test_a_cron_that_says_none_has_none_whoever_sets_it(forge: Forge, kind: str, option: str) -> None:
    none: dict[str, Any] = {option: None}
    mine = await forge.crons.set(
        "a", "@daily", kind, payload={"customer": 1} if kind != "watch" else {}, **none
    )

    assert (mine.group, mine.tenant, mine.key) == ((), None, None)


async def test_a_kind_whose_tenants_take_turns_may_have_a_cron_in_a_group(forge: Forge) -> None:
    cron = await forge.crons.set("a", "@daily", "report", payload={"customer": 1}, tenant=None, group="g")

    assert (cron.group, cron.tenant) == ((Group("g"),), None)


async def test_a_kind_without_a_handler_here_has_what_the_cron_says(forge: Forge) -> None:
    grouped = await forge.crons.set("a", "@daily", "elsewhere", group="serial")
    fair = await forge.crons.set("b", "@daily", "elsewhere", tenant="ada")

    assert (grouped.group, fair.tenant) == ((Group("serial"),), "ada")


async def test_a_cron_set_again_without_a_group_has_none(forge: Forge) -> None:
    await forge.crons.set("a", "@daily", "elsewhere", group="serial")

    assert (await forge.crons.set("a", "@daily", "elsewhere")).groups is None


async def test_a_cron_that_is_disabled_and_enabled_keeps_its_group(forge: Forge) -> None:
    await forge.crons.set("a", "@daily", "bill")
    await forge.crons.disable("a")

    assert (await forge.crons.enable("a")).group == (Group("customer:1", 2),)


async def test_of_a_unique_kind_a_cron_enqueues_no_job_while_one_that_is_the_same_lives(forge: Forge) -> None:
    await forge.crons.set("a", "@daily", "refresh", payload={"customer": 42})
    first = await forge.handlers["refresh"].enqueue(customer=42, force=True)

    made = await forge.crons.trigger("a")

    assert (made.id, made.duplicate) == (first.id, True)


async def test_where_a_call_would_raise_a_cron_is_skipped_only(forge: Forge) -> None:
    unique = Unique("customer", on_conflict="raise")
    await forge.crons.set("a", "@daily", "refresh", payload={"customer": 42}, unique=unique)
    first = await forge.handlers["refresh"].enqueue(customer=42)

    assert (await forge.crons.trigger("a")).id == first.id


async def test_of_a_kind_that_is_unique_for_a_time_a_cron_enqueues_one_job_in_that(forge: Forge) -> None:
    unique = Unique("customer", within=3600)
    cron = await forge.crons.set("a", "@daily", "refresh", payload={"customer": 42}, unique=unique)
    first = await forge.handlers["refresh"].options(unique=unique).enqueue(customer=42)
    await forge.jobs.cancel(first)

    made = await forge.crons.trigger("a")

    assert (made.id, made.duplicate) == (first.id, True)
    assert document(cron)["unique_within_seconds"] == 3600
    assert read(written(cron)).job() == cron.job()


async def test_the_latest_of_a_unique_kind_waits_for_the_one_that_runs(forge: Forge) -> None:
    latest = Unique("customer", latest=True)
    cron = await forge.crons.set("a", "@daily", "refresh", payload={"customer": 42}, unique=latest)
    called = forge.job("refresh", {"customer": 42}, unique=latest)

    assert (cron.key, cron.key_mode, cron.groups) == (called.key, KeyMode.REPLACE, called.groups)


async def test_a_key_of_the_cron_counts_instead_of_what_is_unique_for_all(forge: Forge) -> None:
    cron = await forge.crons.set("a", "@daily", "refresh", payload={"customer": 42}, key="k")

    assert cron.key == "k"


async def test_a_singleton_stays_one_when_a_cron_enqueues_it(forge: Forge) -> None:
    await forge.crons.set("a", "@daily", "watch")
    there = await forge.handlers["watch"].ensure()

    assert (await forge.crons.trigger("a")).id == there.id


async def test_arguments_that_do_not_fit_the_handler_are_refused(forge: Forge) -> None:
    with pytest.raises(UnfitPayload, match="customer"):
        await forge.crons.set("a", "@daily", "report")
    with pytest.raises(UnfitPayload, match="customer"):
        await forge.crons.ensure("a", "@daily", "report", payload={"customer": "ada"})
    with pytest.raises(InvalidInput, match=r"^Line 1: .*customer"):
        await forge.crons.load("@daily report", owner="file")

    assert await forge.crons.list() == []


async def test_a_crontab_says_groups_and_tenants_or_leaves_them_to_handlers(forge: Forge) -> None:
    text = '@daily bill {"customer": 7}\n@daily other ?group=a%20b&id=x\n@daily other ?tenant=ada&id=y\n'

    await forge.crons.load(text, owner="file")

    crons = {cron.name: cron for cron in await forge.crons.list()}
    assert crons["bill"].group == (Group("customer:7", 2),)
    assert (crons["x"].group, crons["y"].tenant) == ((Group("a b"),), "ada")
    assert {cron.change for cron in await forge.crons.load(text, owner="file")} == {"same"}


async def test_the_groups_of_a_cron_are_readable_as_a_document(forge: Forge) -> None:
    shown = document(await forge.crons.set("a", "@daily", "bill"))

    assert shown["groups"] == [{"name": "customer:1", "limit": 2, "overflow": "wait"}]
    assert shown["tenant"] is None


def test_a_handler_declares_its_crons_with_its_group_tenant_and_key() -> None:
    forge = Forge("sqlite://:memory:")

    @forge.handler(
        group=lambda customer: f"customer:{customer}", cron=Cron("@daily", payload={"customer": 42})
    )
    async def bill(customer: int) -> None: ...

    @forge.handler(fair_by="customer", cron="@daily")
    async def report(customer: str = "ada") -> None: ...

    @forge.handler(unique=Unique(), cron="@daily")
    async def refresh() -> None: ...

    crons = forge.handlers.crons()
    assert (crons["bill"].group, crons["report"].tenant) == ((Group("customer:42"),), "ada")
    assert crons["refresh"].key == refresh.job().key
    for cron in crons.values():
        assert read(written(cron)).job() == cron.job()


async def test_a_cron_set_without_an_event_loop_has_the_group_of_its_handler(forge: Forge) -> None:
    from asyncio import to_thread

    cron = await to_thread(lambda: forge.sync.crons.set("a", "@daily", "bill"))

    assert cron.group == (Group("customer:1", 2),)
    assert (await forge.jobs.get(await forge.crons.trigger("a"))).state is State.PENDING


SAID_ELSEWHERE = {
    "bill": ("group", "group of its jobs, and this program does not have it; allowed is group=..., or group=() (--group '') for none"),
    "report": ("tenant", "tenant=..., or tenant=None (--tenant '') for none"),
    "refresh": ("unique", "the uniqueness of its jobs"),
    "watch": ("key", "key=..., or key=None (--key '') for none"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAID_ELSEWHERE)
async def test_what_only_the_handler_of_another_program_says_is_not_left_out_in_silence(
    forge: Forge, kind: str
) -> None:
    option, said = SAID_ELSEWHERE[kind]
    none: dict[str, Any] = {option: () if option == "group" else None}
    async with Forge(forge.storage.url) as other:
        for _ in range(2):
            with pytest.raises(InvalidInput, match=re.escape(said)):
                await other.crons.set("a", "@daily", kind, payload={"customer": 1})
        with pytest.raises(InvalidInput, match=re.escape(said)):
            await other.crons.ensure("a", "@daily", kind, payload={"customer": 1})
        with pytest.raises(InvalidInput, match=r"^Line 1: .*" + re.escape(said)):
            await other.crons.load(f'@daily {kind} {{"customer": 1}}', owner="file")
        assert await other.crons.list() == []

        cron = await other.crons.set("a", "@daily", kind, payload={"customer": 1}, **none)
        assert (cron.group, cron.tenant, cron.key) == ((), None, None)
        await other.crons.load(f"@daily {kind} ?key=k&group=&tenant=", owner="file")


async def test_of_all_that_is_left_out_the_group_is_told_first(forge: Forge) -> None:
    said = ("tenant", "key", "unique", "group")
    await forge.storage.kinds.declare([Kind("all", unpublished=said)], by="a test")

    async with Forge(forge.storage.url) as other:
        with pytest.raises(InvalidInput, match="says the group"):
            await other.crons.set("a", "@daily", "all")


async def test_a_key_says_what_is_unique_where_the_handler_is_elsewhere(forge: Forge) -> None:
    async with Forge(forge.storage.url) as other:
        assert (await other.crons.set("a", "@daily", "refresh", key="k")).key == "k"


async def test_a_cron_that_is_disabled_where_its_handler_is_not_known_keeps_its_group(forge: Forge) -> None:
    await forge.crons.set("a", "@daily", "bill")

    async with Forge(forge.storage.url) as other:
        await other.crons.disable("a")
        assert (await other.crons.enable("a")).group == (Group("customer:1", 2),)


async def test_what_a_handler_of_a_later_release_says_is_in_nobodys_way(forge: Forge) -> None:
    await forge.storage.kinds.declare([Kind("later", unpublished=("mood",))], by="a test")

    async with Forge(forge.storage.url) as other:
        events: list[Event] = []
        other.telemetry.subscribe(events.append)
        await other.enqueue("later")
        assert (await other.crons.set("a", "@daily", "later")).kind == "later"
    assert events == []

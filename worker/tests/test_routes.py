"""Routes say the queue of jobs whose call and whose handler do not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge, Worker
from forge_jobs.errors import InvalidInput


@pytest.fixture
def forge(tmp_path: Path) -> Forge:
    forge = Forge(f"sqlite:///{tmp_path}/queue.sqlite")
    forge.route("gh_", "gh")
    forge.route("slack_", "slack")
    return forge


@pytest.fixture
async def opened(forge: Forge) -> AsyncIterator[Forge]:
    @forge.handler
    async def gh_sync() -> None: ...

    @forge.handler(queue="own")
    async def gh_own() -> None: ...

    @forge.handler
    async def other() -> None: ...

    async with forge:
        yield forge


async def queue_of(forge: Forge, kind: str, **options: Any) -> str:
    return (await forge.jobs.get(await forge.enqueue(kind, **options))).queue


async def test_a_kind_goes_where_its_prefix_says(opened: Forge):
    assert await queue_of(opened, "gh_sync") == "gh"
    assert await queue_of(opened, "slack_post") == "slack"  # which has no handler here
    assert await queue_of(opened, "other") == "default"


async def test_what_the_call_or_the_handler_says_counts_for_more(opened: Forge):
    assert await queue_of(opened, "gh_own") == "own"
    assert await queue_of(opened, "gh_sync", queue="own") == "own"


async def test_many_jobs_and_batches_are_routed_as_well(opened: Forge):
    many = await opened.enqueue_many("gh_sync", [{}, {}])
    batch = await opened.enqueue_batch([opened.job("gh_sync")])

    assert {(await opened.jobs.get(job)).queue for job in [*many, *batch]} == {"gh"}


async def test_who_enqueues_by_name_elsewhere_follows_the_route_of_the_handlers_program(
    opened: Forge, tmp_path: Path
):
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as another:
        assert await queue_of(another, "gh_sync") == "gh"


async def test_routes_are_asked_in_their_order(forge: Forge):
    @forge.route
    def by_length(kind: str) -> str | None:
        return "long" if len(kind) > 10 else None

    async with forge:
        await forge.queues.ensure("long")

        assert await queue_of(forge, "gh_with_a_long_name") == "gh"
        assert await queue_of(forge, "something_long") == "long"
        assert await queue_of(forge, "short") == "default"


async def test_a_cron_of_a_handler_follows_the_route(forge: Forge):
    @forge.handler(cron="0 3 * * *")
    async def gh_nightly() -> None: ...

    async with forge:
        await Worker(forge, queues=["gh"]).run(until_empty=True)

        [cron] = await forge.crons.list()
        assert cron.queue == "gh"


@pytest.mark.parametrize("route", [("gh_",), ("gh_", 3), ("", "gh"), (3, "gh"), ("a b", "gh"), (print, "gh")])
def test_a_wrong_route_is_refused(forge: Forge, route: Any):
    with pytest.raises(InvalidInput, match="allowed are"):
        forge.route(*route)


async def test_a_function_that_returns_no_queue_is_said(forge: Forge):
    forge.route(lambda kind: 3)  # type: ignore[type-var]

    async with forge:
        with pytest.raises(
            InvalidInput, match="The route of kind 'other' is wrong: The queue is 3, allowed are"
        ):
            await forge.enqueue("other")


async def test_a_route_comes_before_the_forge_is_opened(opened: Forge):
    with pytest.raises(InvalidInput, match="allowed is before it is opened"):
        opened.route("late_", "late")

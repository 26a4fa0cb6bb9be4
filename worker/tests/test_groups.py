"""How a program says the groups of its jobs, and what it is told when it says them wrongly."""

from datetime import UTC, datetime

import pytest

from forge_jobs import Forge, Group, InvalidInput, State, UnknownGroup, Worker
from forge_jobs.codecs.encoded import Encoded


@pytest.fixture
async def forge(tmp_path):
    forge = Forge(f"sqlite:///{tmp_path}/q.sqlite")

    @forge.handler(group=lambda customer: f"customer:{customer}")
    async def bill(customer: int, year: int = 2026) -> None: ...

    @forge.handler
    async def plain(customer: int = 1) -> None: ...

    async with forge:
        yield forge


async def groups_of(forge, answer):
    return (await forge.jobs.get(answer)).groups


async def test_a_handler_finds_the_group_of_a_job_in_its_arguments(forge):
    assert await groups_of(forge, await forge.enqueue("bill", {"customer": 42})) == (Group("customer:42"),)


async def test_each_of_many_jobs_has_the_group_of_its_own_arguments(forge):
    answers = await forge.enqueue_many("bill", [{"customer": number % 2} for number in range(6)])

    assert [(await groups_of(forge, one))[0].name for one in answers] == ["customer:0", "customer:1"] * 3
    assert [(one.name, one.occupants, one.blocked) for one in await forge.groups.list()] == [
        ("customer:0", 1, 2),
        ("customer:1", 1, 2),
    ]


async def test_an_encoded_payload_is_read_for_its_group(forge):
    assert await groups_of(forge, await forge.enqueue("bill", Encoded(b'{"customer":7}'))) == (
        Group("customer:7"),
    )


async def test_what_an_argument_is_when_it_is_not_given_counts_for_the_group(forge: Forge) -> None:
    @forge.handler(group=lambda year: f"year:{year}")
    async def close(year: int = 2026) -> None: ...

    assert await groups_of(forge, await close.enqueue()) == (Group("year:2026"),)


async def test_a_call_says_more_than_the_handler(forge):
    answer = await forge.enqueue("bill", {"customer": 1}, group=["a", Group("b", limit=3)])
    assert await groups_of(forge, answer) == (Group("a"), Group("b", limit=3))

    assert await groups_of(forge, await forge.enqueue("bill", {"customer": 1}, group=())) == ()


async def test_a_function_that_returns_none_means_no_group(forge):
    answer = await forge.enqueue("plain", {"customer": 1}, group=lambda customer: None)

    assert await groups_of(forge, answer) == ()


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("", "group is '', allowed are 1 to 128 characters."),
        ("x" * 129, "allowed are 1 to 128 characters."),
        (7, "group is 7, allowed is a name, a Group, or a list of these."),
        (["a", 7], "group is 7, allowed are 1 to 128 characters."),
        (["a", "a"], "Group 'a' is given 2 times, allowed is once."),
        ([str(number) for number in range(9)], "A job has 9 groups, allowed are at most 8."),
        (Group("x", limit=0), "The limit of group 'x' is 0, allowed is a whole number from 1 to 1000."),
        (Group("x", limit=1001), "The limit of group 'x' is 1001, allowed is a whole number from 1 to 1000."),
        (Group("x", limit=True), "The limit of group 'x' is True, allowed is a whole number from 1 to 1000."),
        (
            Group("x", overflow="drop"),
            "The overflow of group 'x' is 'drop', allowed is one of wait, drop_newest, cancel_running.",
        ),
        (lambda user: user, "group takes the argument 'user', which plain does not have; it takes customer."),
        (
            lambda customer: 1 / 0,
            "The group of a job of 'plain' is not known, since its function failed: ZeroDivisionError: division by zero",
        ),
        (lambda customer: 7, "group is 7, allowed is a name, a Group, or a list of these."),
        (
            lambda *customer: "a",
            "group is a function with the parameter 'customer', allowed are parameters by name.",
        ),
    ],
)
async def test_a_wrong_group_is_told_in_one_sentence_and_nothing_is_written(forge, group, said):
    with pytest.raises(InvalidInput) as raised:
        await forge.enqueue("plain", {"customer": 1}, group=group)

    assert str(raised.value).endswith(said)
    assert await forge.jobs.list() == []


def test_a_handler_with_a_wrong_group_is_told_when_it_is_declared():
    forge = Forge("sqlite:///:memory:")
    with pytest.raises(
        InvalidInput, match="group takes the argument 'usr', which send does not have; it takes user"
    ):

        @forge.handler(group=lambda usr: usr)
        async def send(user: int) -> None: ...

    with pytest.raises(InvalidInput, match="The limit of group 'x' is 0"):
        forge.handler(kind="x", group=Group("x", limit=0))(lambda: None)


async def test_an_unknown_kind_lacks_the_argument_that_a_function_takes(forge):
    with pytest.raises(
        InvalidInput, match="group takes the argument 'user', which the payload of 'other' does not have"
    ):
        await forge.enqueue("other", {}, group=lambda user: user)


async def test_limits_of_groups_are_looked_at_and_set(forge):
    for _ in range(3):
        await forge.enqueue("bill", {"customer": 1})

    assert (await forge.groups.set("customer:1", 2)).occupants == 2
    assert (await forge.groups.get("customer:1")).set_limit == 2
    with pytest.raises(UnknownGroup, match="There is no group 'b'"):
        await forge.groups.get("b")
    with pytest.raises(InvalidInput, match="The limit of group 'a' is 0"):
        await forge.groups.set("a", 0)


async def test_why_names_the_job_that_has_the_place_and_how_many_are_before(forge):
    first = await forge.enqueue("bill", {"customer": 1})
    blocked = [await forge.enqueue("bill", {"customer": 1}) for _ in range(3)]

    why = await forge.jobs.why(blocked[2])

    assert why.state is State.BLOCKED
    assert why.reasons == (
        f"Its group 'customer:1' runs 1 at a time: job {first.id} has the place and is pending. "
        "2 jobs of the group are before it.",
    )


@pytest.mark.parametrize("what", ["queue", "kind"])
async def test_why_says_that_the_job_that_has_the_place_is_paused(forge, what):
    first, blocked = [await forge.enqueue("bill", {"customer": 1}) for _ in range(2)]
    if what == "queue":
        await forge.queues.pause("default", why="the bank is closed")
    else:
        await forge.kinds.pause("bill", why="the bank is closed")

    [reason] = (await forge.jobs.why(blocked)).reasons

    named = "queue 'default'" if what == "queue" else "kind 'bill'"
    assert reason == (
        f"Its group 'customer:1' runs 1 at a time: job {first.id} has the place and is pending, "
        f"and its {named} is paused: the bank is closed."
    )


async def test_a_worker_runs_the_jobs_of_a_group_one_after_the_other_until_none_is_left(forge: Forge) -> None:
    running, most, order = 0, 0, []

    @forge.handler(group="one")
    async def step(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(number)
        running -= 1

    await forge.enqueue_many("step", [{"number": number} for number in range(20)])
    await Worker(forge, queues=["default"], concurrency=5).run(until_empty=True)

    assert (most, order) == (1, list(range(20)))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"name": ""}, "group is ''"),
        ({"name": "a", "until": -1}, "until is -1"),
        ({"name": "a", "until": datetime(2020, 1, 1, tzinfo=UTC)}, "allowed is a moment after now"),
        ({"name": "a", "why": "two\nlines"}, "why is"),
    ],
)
async def test_a_pause_that_is_said_wrongly_pauses_nothing(forge, said, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        await forge.groups.pause(**said)
    assert await forge.groups.list() == []

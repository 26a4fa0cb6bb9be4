"""How a program says on whose behalf its jobs are, and what it is told when it says it wrongly."""

from uuid import UUID

import pytest

from forge_jobs import Forge, InvalidInput, TenantStatus, Unique, UnknownQueue, Worker
from forge_jobs.codecs.encoded import Encoded


@pytest.fixture
async def forge(tmp_path):
    forge = Forge(f"sqlite:///{tmp_path}/q.sqlite")

    @forge.handler(fair_by="customer")
    async def bill(customer: int | str | None = 7, year: int = 2026) -> None: ...

    @forge.handler
    async def plain(customer: int = 1) -> None: ...

    async with forge:
        yield forge


async def tenant_of(forge, answer):
    return (await forge.jobs.get(answer)).tenant


async def test_a_handler_names_the_argument_that_is_the_tenant(forge):
    assert await tenant_of(forge, await forge.enqueue("bill", {"customer": "ada"})) == "ada"


async def test_each_of_many_jobs_is_of_the_tenant_of_its_own_arguments(forge):
    answers = await forge.enqueue_many("bill", [{"customer": number % 2} for number in range(6)])

    assert [await tenant_of(forge, one) for one in answers] == ["0", "1"] * 3


async def test_a_tenant_may_be_found_by_a_function_of_the_arguments(forge: Forge) -> None:
    @forge.handler(fair_by=lambda customer, **others: f"{customer}@{others['year']}")
    async def close(customer: str, year: int = 2026) -> None: ...

    assert await tenant_of(forge, await close.enqueue(customer="ada")) == "ada@2026"


async def test_an_argument_that_is_not_given_counts_as_what_it_is_then(forge):
    assert await tenant_of(forge, await forge.enqueue("bill", {})) == "7"


async def test_an_encoded_payload_is_read_for_its_tenant(forge):
    assert await tenant_of(forge, await forge.enqueue("bill", Encoded(b'{"customer":8}'))) == "8"


async def test_a_call_says_more_than_the_handler(forge):
    assert await tenant_of(forge, await forge.enqueue("bill", {"customer": 1}, tenant="bob")) == "bob"
    many = await forge.enqueue_many("plain", [{}, {}], tenant="bob")
    assert [await tenant_of(forge, one) for one in many] == ["bob", "bob"]


async def test_a_tenant_of_none_means_nobody(forge):
    assert await tenant_of(forge, await forge.enqueue("bill", {"customer": None})) is None
    assert await tenant_of(forge, await forge.enqueue("plain", {})) is None


async def test_a_number_and_a_uuid_are_names_as_they_are_written(forge):
    uuid = UUID("12345678-1234-5678-1234-567812345678")

    assert await tenant_of(forge, await forge.enqueue("plain", {}, tenant=42)) == "42"
    assert await tenant_of(forge, await forge.enqueue("plain", {}, tenant=uuid)) == str(uuid)


async def test_a_unique_job_has_a_tenant_too(forge):
    answers = [
        await forge.enqueue("bill", {"customer": "ada"}, unique=Unique(by=("customer",))) for _ in range(2)
    ]

    assert [one.duplicate for one in answers] == [False, True]
    assert await tenant_of(forge, answers[0]) == "ada"


async def test_a_job_that_is_run_again_is_of_the_same_tenant(forge):
    first = await forge.enqueue("bill", {"customer": "ada"})
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert await tenant_of(forge, await forge.jobs.rerun(first)) == "ada"


TENANT = "allowed are 1 to 128 characters, a whole number or a UUID."


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tenant": ""}, f"tenant is '', {TENANT}"),
        ({"tenant": "x" * 129}, TENANT),
        ({"tenant": "a\0"}, TENANT),
        ({"tenant": True}, f"tenant is True, {TENANT}"),
        ({"tenant": ["a"]}, f"tenant is ['a'], {TENANT}"),
        (
            {"tenant": "a", "group": "g"},
            "A job of 'plain' has the tenant 'a' and a group, allowed is one of them.",
        ),
        (
            {"tenant": "a", "unique": Unique(latest=True)},
            "A job of 'plain' has the tenant 'a' and a group, allowed is one of them.",
        ),
        ({"fair_by": "customer"}, None),
    ],
)
async def test_a_wrong_tenant_is_told_in_one_sentence_and_nothing_is_written(forge, options, said):
    for enqueued in (
        lambda: forge.enqueue("plain", {"customer": 1}, **options),
        lambda: forge.enqueue_many("plain", [{"customer": 1}], **options),
    ):
        with pytest.raises(InvalidInput) as raised:
            await enqueued()
        assert str(raised.value).endswith(said or "") and "\n" not in str(raised.value)
    assert await forge.jobs.list() == []


async def test_an_argument_that_is_no_name_is_told_and_nothing_is_written(forge):
    with pytest.raises(InvalidInput, match=r"tenant is 1\.5, allowed are 1 to 128 characters"):
        await forge.enqueue("bill", Encoded(b'{"customer":1.5}'))
    assert await forge.jobs.list() == []


@pytest.mark.parametrize(
    ("fair_by", "said"),
    [
        ("usr", "fair_by takes the argument 'usr', which send does not have; it takes user."),
        (lambda usr: usr, "fair_by takes the argument 'usr', which send does not have; it takes user."),
        (
            lambda *user: user,
            "fair_by is a function with the parameter 'user', allowed are parameters by name.",
        ),
        (
            "the user",
            "fair_by is 'the user', allowed is the name of an argument, or a function of arguments.",
        ),
        (7, "fair_by is 7, allowed is the name of an argument, or a function of arguments."),
    ],
)
def test_a_handler_that_says_it_wrongly_is_told_when_it_is_declared(fair_by, said):
    forge = Forge("sqlite:///:memory:")

    async def send(user: int) -> None: ...

    with pytest.raises(InvalidInput) as raised:
        forge.handler(fair_by=fair_by)(send)
    assert str(raised.value) == said


def test_a_handler_has_a_group_or_is_fair():
    with pytest.raises(InvalidInput, match=r"fair_by and group are both given, allowed is one of them\."):
        Forge("sqlite:///:memory:").handler(kind="x", fair_by=lambda: 1, group="g")(lambda: None)


async def test_a_function_that_fails_is_told_and_nothing_is_written(forge: Forge) -> None:
    @forge.handler(fair_by=lambda user: 1 / user)
    async def send(user: int) -> None: ...

    with pytest.raises(InvalidInput, match="The fair_by of a job of 'send' is not known, since its function"):
        await send.enqueue(user=0)
    assert await forge.jobs.list() == []


async def test_weights_are_set_and_taken_back(forge):
    assert await forge.tenants.set_weight("ada", 3, queue="default")

    assert await forge.tenants.list() == [TenantStatus("default", "ada", 3.0, 0)]
    assert await forge.tenants.list(queue="default", limit=1) == await forge.tenants.list()
    assert await forge.tenants.set_weight("ada", None, queue="default")
    assert await forge.tenants.list() == []


@pytest.mark.parametrize("weight", [0, -1, 0.01, 101, True, "3", float("nan"), float("inf")])
async def test_a_wrong_weight_is_told_and_nothing_is_written(forge, weight):
    with pytest.raises(
        InvalidInput, match=r"The weight of tenant 'ada' is .*, allowed is a number from 0.1 to 100\."
    ):
        await forge.tenants.set_weight("ada", weight, queue="default")
    assert await forge.tenants.list() == []


async def test_a_queue_that_is_not_there_has_no_weights(forge):
    with pytest.raises(UnknownQueue):
        await forge.tenants.set_weight("ada", 3, queue="nowhere")
    with pytest.raises(UnknownQueue):
        await forge.tenants.list(queue="nowhere")


async def test_why_names_the_tenant_and_how_many_are_before(forge):
    await forge.enqueue_many("plain", [{}] * 4, tenant="ada")
    mine = await forge.enqueue("plain", {}, tenant="ada")
    await forge.enqueue_many("plain", [{}] * 2, tenant="bob")

    reasons = (await forge.jobs.why(mine)).reasons

    assert (
        "It waits for a turn of tenant 'ada': 6 jobs of its queue are ahead of it, 4 of them of its tenant."
        in reasons
    )


async def test_a_worker_gives_each_tenant_its_turns(forge: Forge) -> None:
    order = []

    @forge.handler(fair_by="customer")
    async def step(customer: str) -> None:
        order.append(customer)

    await forge.enqueue_many("step", [{"customer": "many"}] * 30)
    await forge.enqueue_many("step", [{"customer": "few"}] * 3)
    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    assert len(order) == 33
    assert order[:7].count("few") == 3

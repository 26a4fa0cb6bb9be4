"""How a program tags its jobs, finds them, and what it is told when it tags them wrongly."""

import pytest

from forge_jobs import Forge, InvalidInput, State


@pytest.fixture
async def forge(tmp_path):
    forge = Forge(f"sqlite:///{tmp_path}/q.sqlite")

    @forge.handler(tags=["mail"])
    async def send(to: str = "ada") -> None: ...

    @forge.handler
    async def plain() -> None: ...

    async with forge:
        yield forge


async def tags_of(forge, answer):
    return (await forge.jobs.get(answer)).tags


async def test_a_job_has_the_tags_of_its_handler_unless_it_says_others(forge):
    assert await tags_of(forge, await forge.enqueue("send")) == ("mail",)
    assert await tags_of(forge, await forge.enqueue("send", tags=["a", "b", "a"])) == ("a", "b")
    assert await tags_of(forge, await forge.enqueue("send", tags=())) == ()
    assert await tags_of(forge, await forge.enqueue("plain", tags={"a"})) == ("a",)
    assert await tags_of(forge, await forge.enqueue("plain")) == ()


async def test_jobs_of_a_batch_and_by_options_have_their_tags(forge):
    many = await forge.enqueue_many("send", [{}, {}], tags=["many"])
    batch = await forge.enqueue_batch([forge.job("send"), forge.job("plain", tags=["b"])])
    one = await forge.handlers["send"].options(tags=["c"]).enqueue()

    assert [await tags_of(forge, answer) for answer in (*many, *batch, one)] == [
        ("many",),
        ("many",),
        ("mail",),
        ("b",),
        ("c",),
    ]


async def test_jobs_are_listed_and_counted_by_tag(forge):
    [first, second] = await forge.enqueue_many("plain", [{}, {}], tags=["a", "b"])
    await forge.enqueue("plain", tags=["b"])

    assert [job.id for job in await forge.jobs.list(tags=["a"])] == [second.id, first.id]
    assert [job.id for job in await forge.jobs.list(tags=["b", "a"], state="pending", limit=1)] == [second.id]
    assert await forge.jobs.count(state=["pending", "dead"], tags=["b"]) == 3


async def test_jobs_are_cancelled_retried_and_deleted_by_tag(forge):
    await forge.enqueue_many("plain", [{}, {}, {}], tags=["a"])
    other = await forge.enqueue("plain", tags=["b"])

    assert (await forge.jobs.cancel_all(tags=["a"])).changed == 3
    assert (await forge.jobs.retry_all(tags=["a", "b"])).changed == 0
    assert (await forge.jobs.retry_all(tags=["a"])).changed == 3
    assert (await forge.jobs.delete_all(state=State.PENDING, tags=["a"])).changed == 3
    assert [job.id for job in await forge.jobs.list()] == [other.id]


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("mail", "tags is 'mail', allowed is a list."),
        (None, "tags is None, allowed is a list."),
        (7, "tags is 7, allowed is a list."),
        ([""], "A tag is '', allowed are 1 to 64 printable characters."),
        (["x" * 65], f"A tag is '{'x' * 65}', allowed are 1 to 64 printable characters."),
        (["a\nb"], "A tag is 'a\\nb', allowed are 1 to 64 printable characters."),
        ([7], "A tag is 7, allowed are 1 to 64 printable characters."),
        ([str(number) for number in range(11)], "11 tags are given, allowed are at most 10."),
    ],
)
async def test_wrong_tags_are_told_wherever_they_are_said(forge, tags, said):
    for call in (forge.jobs.list, forge.jobs.cancel_all, forge.jobs.retry_all):
        with pytest.raises(InvalidInput) as raised:
            await call(tags=tags)
        assert str(raised.value) == said
    with pytest.raises(InvalidInput) as raised:
        await forge.enqueue("plain", tags=tags)
    assert str(raised.value) == said
    if tags is not None:
        with pytest.raises(InvalidInput) as raised:
            forge.handler(kind="other", tags=tags)(lambda: None)
        assert str(raised.value) == said
    assert await forge.jobs.list() == []

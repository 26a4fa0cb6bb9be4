"""What plugins send along with a job: it comes to the workers that want it, and to no others."""

from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidInput
from forge_jobs.model import meta
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Hold, KeyMode
from tests.storage.factories import claim, enqueue, failed, job, running, worker

TRACE = '{"traceparent":"00-0a"}'
HOUR = timedelta(hours=1)


async def metas(storage, me):
    """Return the meta of each job that can be claimed, in their order."""
    storage.claims.reads_meta = True
    return [claimed.meta for claimed in await claim(storage, me)]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"key": "a"},
        {"key": "a", "key_mode": KeyMode.REPLACE},
        {"hold": Hold(b"0" * 16, HOUR)},
        {"groups": encoded([Group("g")])},
        {"tenant": "ada"},
        {"tags": ("a",)},
    ],
    ids=["plain", "key", "replace", "hold", "group", "tenant", "tag"],
)
async def test_a_job_brings_its_meta_however_it_was_enqueued(storage, facts):
    me = await worker(storage)
    await enqueue(storage, meta=TRACE, **facts)

    assert await metas(storage, me) == [TRACE]


@pytest.mark.parametrize("count", [3, 300], ids=["few", "many"])
async def test_each_job_of_a_batch_brings_its_own_meta(storage, count):
    me = await worker(storage)
    await storage.jobs.enqueue_many(
        [job(meta=meta.encoded({"number": str(number)}) if number % 2 else None) for number in range(count)]
    )

    assert await metas(storage, me) == [
        meta.encoded({"number": str(number)}) if number % 2 else None for number in range(count)
    ]


async def test_a_job_in_a_transaction_of_its_caller_brings_its_meta(storage, database):
    me = await worker(storage)
    async with database.transaction() as connection:
        await storage.jobs.enqueue(job(meta=TRACE), connection=connection)

    assert await metas(storage, me) == [TRACE]


@pytest.mark.parametrize("new", [None, '{"traceparent":"00-0b"}'], ids=["none", "another"])
async def test_a_job_that_is_replaced_has_the_meta_of_what_took_its_place(storage, new):
    me = await worker(storage)
    replaced = {"key": "a", "key_mode": KeyMode.REPLACE}
    await enqueue(storage, meta=TRACE, **replaced)
    await enqueue(storage, meta=new, **replaced)

    assert await metas(storage, me) == [new]


async def test_a_job_brings_its_meta_to_each_of_its_attempts(storage):
    me = await worker(storage)
    claimed = await running(storage, me, meta=TRACE)
    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])

    assert await metas(storage, me) == [TRACE]


async def test_a_worker_that_does_not_want_it_does_not_read_it(storage):
    me = await worker(storage)

    assert (await running(storage, me, meta=TRACE)).meta is None


def test_meta_is_short_texts_by_name():
    assert meta.encoded({}) is None
    assert meta.decoded(meta.encoded({"a": "ä"})) == {"a": "ä"}
    assert meta.decoded("no JSON") == meta.decoded(None) == {}
    with pytest.raises(InvalidInput, match=r"meta has 'a': 3, allowed are texts"):
        meta.encoded({"a": 3})  # type: ignore[dict-item]
    with pytest.raises(InvalidInput, match=r"bytes, allowed are 16,384"):
        meta.encoded({"a": "a" * 20_000})

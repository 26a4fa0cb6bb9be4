"""What only PostgreSQL can do: enqueue from SQL, more than one schema, and silence where nobody waits."""

import asyncio
import contextlib
import re
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from forge_jobs.client import jobs
from forge_jobs.client.operations import Bulk
from forge_jobs.codecs import sealed
from forge_jobs.errors import InvalidInput, StorageUnavailable
from forge_jobs.model.finding import Fault
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import FOREVER, Removed, State
from forge_jobs.model.kind import Kind
from forge_jobs.rules import operations
from forge_jobs.rules.items import read
from forge_jobs.storage.postgres import contention, job_rows, tenants
from forge_jobs.storage.postgres import enqueue as enqueue_module
from forge_jobs.storage.postgres.connection import PostgresDatabase
from tests.storage.ear import PROBE, Ear
from tests.storage.factories import (
    claim,
    claim_ids,
    done,
    ended,
    enqueue,
    enqueue_many,
    failed,
    job,
    leader,
    queue,
    state,
    worker,
)

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)


@pytest.fixture
async def ear(storage):
    async with Ear(storage) as ear:
        yield ear


async def told_until_now(storage, ear):
    """Return what was told so far."""
    ear.told.clear()
    await storage.tokens.empty(PROBE)
    await ear.hears("empty", PROBE)
    return [told for told in ear.told if told[0] != "empty"]


async def test_a_job_that_is_enqueued_by_sql_is_like_any_other(postgres, storage):
    await storage.queues.set("mail", {"max_attempts": 9})

    [[job_id]] = await postgres.rows(
        """SELECT forge_jobs.enqueue('send', '{"to": "ä"}', queue => 'mail', priority => -2, key => 'k',
                                     timeout => '1.5 seconds')"""
    )

    found = await storage.jobs.get(job_id)
    assert (found.kind, found.queue, found.priority, found.key) == ("send", "mail", -2, "k")
    assert (found.max_attempts, found.timeout, found.attempt) == (9, timedelta(seconds=1.5), 0)
    assert (found.state, found.payload, found.codec) == (State.PENDING, '{"to": "ä"}'.encode(), "json")
    assert await claim_ids(storage, await worker(storage, ["mail"]), "mail") == [job_id]


async def test_sql_may_leave_out_everything_but_the_kind(postgres, storage):
    [[job_id]] = await postgres.rows("SELECT forge_jobs.enqueue('work')")

    found = await storage.jobs.get(job_id)
    assert (found.queue, found.payload, found.max_attempts) == ("default", b"{}", 5)


async def test_sql_may_enqueue_bytes_in_any_codec_with_every_option(postgres, storage):
    await storage.queues.set("mail", {})
    [[job_id]] = await postgres.rows(
        r"""SELECT forge_jobs.enqueue_bytes('send', '\x81a16e07', codec => 'msgpack', queue => 'mail', priority => 3,
                                           max_attempts => 2, timeout => '2 seconds', key => 'k', key_mode => 'replace',
                                           delay => '1 hour')"""
    )

    found = await storage.jobs.get(job_id)
    assert (found.payload, found.codec) == (b"\x81\xa1n\x07", "msgpack")
    assert (found.kind, found.queue, found.priority, found.max_attempts) == ("send", "mail", 3, 2)
    assert (found.timeout, found.key, found.state) == (timedelta(seconds=2), "k", State.SCHEDULED)
    assert timedelta(minutes=59) < found.run_at - found.created_at <= timedelta(hours=1)


async def test_sql_may_say_on_whose_behalf_a_job_is(postgres, storage):
    me = await worker(storage)
    await enqueue_many(storage, 20, tenant="b")
    [[job_id]] = await postgres.rows("SELECT forge_jobs.enqueue('work', tenant => 'a')")
    await storage.schedule.make_pending()

    assert (await storage.jobs.get(job_id)).tenant == "a"
    assert job_id in await claim_ids(storage, me, limit=2)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("tenant => ''", 'tenant is "", allowed are 1 to 128 characters'),
        ("tenant => 'a', group_name => 'g'", "tenant and group_name are both given, allowed is one of them"),
    ],
)
async def test_sql_that_says_it_wrongly_enqueues_nothing(postgres, storage, said, sentence):
    with pytest.raises(asyncpg.PostgresError, match=sentence):
        await postgres.rows(f"SELECT forge_jobs.enqueue('work', {said})")
    assert await storage.jobs.find() == []


async def test_sql_may_enqueue_for_later(postgres, storage, ear):
    [[job_id]] = await postgres.rows(
        "SELECT forge_jobs.enqueue('work', run_at => now() + interval '2 seconds')"
    )

    assert await state(storage, job_id) is State.SCHEDULED
    await ear.hears("due")


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
async def test_a_key_that_became_free_after_a_callers_snapshot_is_that_of_their_job(
    postgres, storage, isolation
):
    before = [await enqueue(storage, key=key) for key in "ab"]
    own = await asyncpg.connect(postgres.url)
    async with own.transaction(isolation=isolation):
        await own.fetchval("SELECT count(*) FROM forge_jobs.job")
        for job_id in before:
            await storage.jobs.cancel(job_id)
        answers = [
            await storage.jobs.enqueue(job(key="a"), connection=own),
            *await storage.jobs.enqueue_many([job(key="b"), job()], connection=own),
        ]
    await own.close()

    assert not any(answer.duplicate for answer in answers)
    assert [await state(storage, answer.id) for answer in answers] == [State.PENDING] * 3
    assert await enqueue(storage, key="b") == answers[1].id


@pytest.mark.parametrize("type", ["timestamptz", "text", "bytea"])
async def test_a_codec_of_a_caller_that_a_bulk_cannot_use_is_said_and_is_no_outage(postgres, storage, type):
    own = await asyncpg.connect(postgres.url)
    await own.set_type_codec(type, schema="pg_catalog", encoder=str, decoder=str)
    async with own.transaction():
        with pytest.raises(InvalidInput, match=rf"^The given connection cannot be used: .* type {type} "):
            await storage.jobs.enqueue_many([job()] * 300, connection=own)
        await own.execute("SELECT 1")
    await own.close()

    assert await storage.jobs.find() == []


async def test_keys_count_in_sql_too(postgres, storage):
    first = await enqueue(storage, "send", key="k")

    assert await postgres.rows("SELECT forge_jobs.enqueue('send', key => 'k')") == [(first,)]
    [[second]] = await postgres.rows("SELECT forge_jobs.enqueue('send', key => 'l')")
    assert await enqueue(storage, "send", key="l") == second


async def test_sql_enqueues_lists_and_merges_them(postgres, storage):
    add = "SELECT forge_jobs.enqueue('notify', '[{{\"to\": \"{}\"}}]', key => 'k', key_mode => 'merge')"

    [[first]] = await postgres.rows(add.format("ann"))
    assert await postgres.rows(add.format("bob")) == [(first,)]

    assert (await storage.jobs.get(first)).payload == b'[{"to": "ann"},{"to": "bob"}]'


async def test_what_sql_enqueues_is_an_item_even_if_it_looks_like_a_note(postgres, storage):
    add = "SELECT forge_jobs.enqueue('notify', '[{\"forge_jobs.items\": {\"of\": 1}}]', key => 'k', key_mode => 'merge')"

    [[first]] = await postgres.rows(add)
    await postgres.rows(add)

    assert len(read((await storage.jobs.get(first)).payload, "json").stored) == 2


async def test_sql_adds_no_bytes_that_spoil_a_list_and_no_more_than_the_kind_allows(postgres, storage):
    await storage.kinds.declare([Kind("work", most_bytes=20)], by="a test")
    there = await enqueue(storage, "work", key="k", payload=b"[1]")
    add = "SELECT forge_jobs.enqueue_bytes('work', '{}', key => 'k', key_mode => 'merge')"

    for added, says in (("[3,4", "a payload is no list in JSON"), (f"[{'1' * 20}]", "allowed are 20.")):
        with pytest.raises(asyncpg.PostgresError) as error:
            await postgres.rows(add.format(added))
        assert says in str(error.value)
    await postgres.rows(add.format("[2]"))
    assert (await storage.jobs.get(there)).payload == b"[1,2]"


async def test_sql_replaces_and_removes_by_a_key_too(postgres, storage):
    first = await enqueue(storage, "send", key="k", priority=3)
    same = "SELECT forge_jobs.enqueue('send', '{\"n\": 2}', key => 'k', key_mode => 'replace', max_attempts => 2)"

    assert await postgres.rows(same) == [(first,)]

    found = await storage.jobs.get(first)
    assert (found.payload, found.priority, found.max_attempts) == (b'{"n": 2}', 0, 2)
    [claimed] = await claim(storage, await worker(storage, kinds=["send"]))
    [[second]] = await postgres.rows(same)
    assert second != first
    assert await postgres.rows("SELECT forge_jobs.remove('send', 'k')") == [("deleted",)]
    assert await postgres.rows("SELECT forge_jobs.remove('send', 'k')") == [("not_found",)]
    await storage.claims.postpone([failed(claimed)])
    assert await state(storage, first) is State.DEAD


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("enqueue('work', queue => 'nowhere')", "nowhere"),
        ("enqueue('')", "kind"),
        (
            "enqueue('work', max_attempts => 0)",
            "max_attempts is 0, allowed is 1 .no retry. or more, or -1 for ever",
        ),
        ("enqueue('work', max_attempts => -2)", "max_attempts is -2"),
        ("enqueue('work', timeout => '3000000 years')", "timeout is"),
        ("enqueue('work', timeout => '-1 second')", "timeout is"),
        ("enqueue('work', key => '')", "key is"),
        ("enqueue(NULL)", "kind"),
        ("enqueue('work', key => 'k', key_mode => 'replac')", "dedupe, replace, preserve_run_at"),
        ("enqueue('work', key_mode => 'replace')", "key_mode is given and key is not"),
        ("enqueue('work', '3')", "payload is a JSON number, allowed is an object, or an array"),
        ("enqueue('work', '{}', key => 'k', key_mode => 'merge')", "the payload is no list in JSON"),
        ("enqueue('work', run_at => now(), delay => '1 s')", "delay and run_at are both given"),
        ("enqueue_bytes('work', NULL)", "payload is null, allowed are bytes"),
        ("enqueue_bytes('work', '', codec => '')", "codec is"),
        ("enqueue_bytes('', '')", "kind is"),
        ("enqueue('work', 'null')", "object"),
    ],
)
async def test_sql_is_told_what_is_wrong(postgres, storage, call, says):
    with pytest.raises(asyncpg.InvalidParameterValueError, match=says):
        await postgres.rows(f"SELECT forge_jobs.{call}")

    assert await storage.jobs.find() == []


async def test_sql_says_for_ever_and_no_retry_in_numbers(postgres, storage):
    for said, kept in ((-1, FOREVER), (1, 1)):
        [[job_id]] = await postgres.rows(f"SELECT forge_jobs.enqueue('work', max_attempts => {said})")
        assert (await storage.jobs.get(job_id)).max_attempts == kept


async def test_an_idle_worker_hears_of_a_job_that_sql_enqueued(postgres, storage, ear):
    me = await worker(storage)
    queue_id = (await queue(storage)).id
    await storage.wakeups.mark_idle(me, [queue_id])

    await postgres.rows("SELECT forge_jobs.enqueue('work')")

    await ear.hears("queue", queue_id)


async def test_nobody_is_told_where_nobody_waits(storage, ear):
    await storage.queues.ensure(["mail"])
    me = await worker(storage)
    await told_until_now(storage, ear)
    await storage.wakeups.mark_idle(me, [(await queue(storage, "mail")).id])

    await enqueue(storage)
    await enqueue_many(storage, 10)
    claims = await claim(storage, me)
    await storage.claims.hand_back(claims[:2])
    await storage.claims.postpone([failed(one, delay=timedelta(0)) for one in claims[2:4]])
    await storage.claims.finish([done(one) for one in claims[4:]])

    assert await told_until_now(storage, ear) == []


async def test_a_worker_that_is_busy_again_is_not_told(storage, ear):
    me = await worker(storage)
    await storage.wakeups.mark_idle(me, [(await queue(storage)).id])
    await storage.wakeups.unmark_idle(me)
    await told_until_now(storage, ear)

    await enqueue(storage)

    assert await told_until_now(storage, ear) == []


async def test_a_worker_that_went_is_not_told(storage, ear):
    me = await worker(storage)
    await storage.wakeups.mark_idle(me, [(await queue(storage)).id])
    await storage.workers.deregister(me)
    await told_until_now(storage, ear)

    await enqueue(storage)

    assert await told_until_now(storage, ear) == []


async def test_a_job_in_the_callers_transaction_is_told_though_nobody_waits_yet(storage, ear, postgres):
    async with postgres.transaction() as connection:
        await storage.jobs.enqueue(job(), connection=connection)

    await ear.hears("queue", (await queue(storage)).id)


@pytest.mark.parametrize("name", ["forge_jobs_two", "Größe \"and\" 'quotes'", "select", "with.dot"])
async def test_a_job_lives_its_whole_life_in_a_schema_of_any_name(postgres, storage, name):
    other = postgres.storage(schema=name)
    await other.open()
    try:
        await other.schema.migrate()
        me = await worker(other, ["default", "mail"])
        await ended(other, me, queue="mail", key="k")
        buried = await ended(other, me, State.DEAD)
        await other.jobs.retry(buried)
        [claimed] = await claim(other, me)
        await other.claims.postpone([failed(claimed)])
        await other.jobs.run_now(buried)
        [claimed] = await claim(other, me)
        await other.claims.hand_back([claimed])
        await enqueue_many(other, 3, delay=timedelta(hours=1))
        await other.jobs.cancel(buried)
        await other.jobs.delete(buried)
        await other.schedule.make_pending()
        await other.jobs.fold()

        assert [(one.queue, one.scheduled, one.done) for one in await other.jobs.counts()] == [
            ("default", 3, 0),
            ("mail", 0, 1),
        ]
        assert await storage.jobs.find() == []
    finally:
        await other.schema.drop()
        await other.close()


async def test_a_claimer_does_not_wait_for_jobs_that_another_is_just_taking(storage, postgres):
    ids = await enqueue_many(storage, 6)
    me = await worker(storage)
    async with postgres.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.ready ORDER BY pos LIMIT 2 FOR UPDATE")

        assert await claim_ids(storage, me, limit=3) == ids[2:5]

    assert await claim_ids(storage, me) == [*ids[:2], ids[5]]


async def test_due_jobs_are_moved_on_though_another_is_just_moving_some(storage, postgres):
    clock = postgres.clock
    ids = await enqueue_many(storage, 6, delay=timedelta(minutes=1))
    await clock.advance(minutes=2)
    async with postgres.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.scheduled WHERE job_id = $1 FOR UPDATE", ids[0])

        assert (await storage.schedule.make_pending())[0] == 5


async def test_slots_are_taken_though_another_is_just_taking_some(storage, postgres):
    narrow = (await storage.queues.set("narrow", {"concurrency": 3})).id
    me = await worker(storage, ["narrow"])
    async with postgres.transaction() as connection:
        await connection.execute(
            "SELECT FROM forge_jobs.slot WHERE queue_id = $1 AND number = 1 FOR UPDATE", narrow
        )

        assert await storage.slots.take(narrow, me, 3) == 2


async def test_jobs_are_claimed_while_old_ones_are_swept(storage, postgres):
    me, epoch = await worker(storage), await leader(storage)
    await ended(storage, me)
    await postgres.clock.advance(days=8)
    wanted = await enqueue(storage)
    me = await worker(storage)
    async with postgres.transaction() as connection:
        await connection.execute("DELETE FROM forge_jobs.finished")
        await connection.execute("DELETE FROM forge_jobs.job WHERE id < $1", wanted)
        await connection.execute("UPDATE forge_jobs.tally SET done = done")

        [claimed] = await claim(storage, me)
        assert await storage.claims.finish([done(claimed)]) == []
        await connection.execute(
            "INSERT INTO forge_jobs.tally (queue_id, done) SELECT queue_id, -1 FROM forge_jobs.tally LIMIT 1"
        )

    assert await storage.history.sweep(epoch=epoch) == 0


async def test_a_job_enqueued_in_sql_has_what_its_kind_declares(storage, database):
    await storage.queues.ensure(["mail", "slow"])
    await storage.kinds.declare([Kind("send", "mail", 3, 8, timedelta(seconds=30))], by="a test")

    [(open_id,)] = await database.rows("SELECT enqueue('send')")
    [(said_id,)] = await database.rows(
        "SELECT enqueue('send', '{}', 'slow', 0, max_attempts => 2, timeout => interval '5 seconds')"
    )

    found = await storage.jobs.get(open_id)
    assert (found.queue, found.priority, found.max_attempts, found.timeout) == (
        "mail",
        3,
        8,
        timedelta(seconds=30),
    )
    found = await storage.jobs.get(said_id)
    assert (found.queue, found.priority, found.max_attempts, found.timeout) == (
        "slow",
        0,
        2,
        timedelta(seconds=5),
    )


async def test_jobs_of_a_long_transaction_stand_where_they_were_asked_for(storage, postgres):
    async with postgres.transaction() as connection:
        await connection.execute("SELECT 1")
        first = await enqueue(storage)
        second = (await storage.jobs.enqueue(job(), connection=connection)).id
        [[by_sql]] = await connection.fetch("SELECT forge_jobs.enqueue('work')")
        last = await enqueue(storage)

    assert await claim_ids(storage, await worker(storage)) == [first, second, by_sql, last]


async def test_only_one_function_notifies_so_that_a_full_queue_fails_nobody(database, postgres):
    notifying = "SELECT proname FROM pg_proc WHERE pronamespace = 'forge_jobs'::regnamespace AND prosrc LIKE '%pg_notify%'"

    assert await postgres.rows(notifying) == [("tell",)]


@pytest.mark.parametrize("kind", [None, "work"])
async def test_jobs_that_another_session_keeps_locked_are_told_of(storage, postgres, monkeypatch, kind):
    monkeypatch.setattr(operations, "LOCKED_FOR", timedelta(0))
    ids = await enqueue_many(storage, 6)
    await enqueue(storage, "other")
    async with postgres.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.ready WHERE job_id = ANY ($1) FOR UPDATE", ids[1:3])

        assert await jobs.Jobs(storage).cancel_all(kind=kind) == Bulk(4 if kind else 5, locked=2)


@pytest.mark.parametrize(
    ("move", "table"), [("cancel_all", "ready"), ("delete_all", "ready"), ("retry_all", "finished")]
)
async def test_jobs_that_another_session_had_locked_are_tried_again(storage, postgres, move, table):
    me = await worker(storage)
    if move == "retry_all":
        for _ in range(3):
            await ended(storage, me, State.DEAD)
    else:
        await enqueue_many(storage, 3)
    told = asyncio.Event()
    wanted = {"delete_all": {"state": "pending"}}.get(move, {})
    async with postgres.transaction() as connection:
        await connection.execute(
            f"SELECT FROM forge_jobs.{table} WHERE job_id = (SELECT min(job_id) FROM forge_jobs.{table}) FOR UPDATE"
        )
        moving = asyncio.create_task(
            getattr(jobs.Jobs(storage), move)(**wanted, progress=lambda bulk: told.set())
        )
        await told.wait()

    assert await moving == Bulk(3)


async def test_the_sweep_waits_for_no_job_that_another_session_keeps_locked(storage, postgres, clock):
    me, epoch = await worker(storage), await leader(storage)
    ids = await enqueue_many(storage, 6)
    await storage.claims.finish([done(one) for one in await claim(storage, me)])
    await clock.advance(days=8)
    async with postgres.transaction() as connection:
        await connection.execute(
            "SELECT FROM forge_jobs.finished WHERE job_id = ANY ($1) FOR UPDATE", ids[1:3]
        )

        assert await storage.history.sweep(epoch=epoch) == 4
        assert await storage.history.sweep(epoch=epoch) == 0

    assert await storage.history.sweep(epoch=epoch) == 2
    assert await postgres.rows("SELECT FROM forge_jobs.done_together") == []


async def test_the_sweep_goes_on_behind_jobs_of_the_past_that_are_all_gone(storage, postgres, clock):
    me, epoch = await worker(storage), await leader(storage)
    for keeps in (True, False, False, False, False, True, True):
        job_id = await ended(storage, me)
        if not keeps:
            await storage.jobs.delete(job_id)
        await clock.advance(seconds=1)
    await clock.advance(days=8)

    assert await storage.history.sweep(epoch=epoch, limit=3) == 3


async def test_a_done_job_that_the_sweep_would_not_find_is_found_by_the_audit(storage, postgres, clock):
    me, epoch = await worker(storage), await leader(storage)
    job_id = await ended(storage, me)
    await postgres.rows("DELETE FROM forge_jobs.done_together RETURNING at")

    [found] = [one async for look in storage.audit.jobs() for one in look.findings]
    [mended] = [one async for look in storage.audit.jobs(repair=True) for one in look.findings]

    assert (found.fault, found.job_id, found.mended) == (Fault.UNDATED, job_id, None)
    assert mended.mended == "It is noted."
    assert [one async for look in storage.audit.jobs() for one in look.findings] == []
    await clock.advance(days=8)
    assert await storage.history.sweep(epoch=epoch) == 1


async def test_a_job_that_sql_enqueues_has_its_group(storage, database):
    for _ in range(2):
        await database.rows("SELECT forge_jobs.enqueue('work', group_name => 'a', group_limit => 1)")
    await storage.schedule.make_pending()

    [group] = await storage.groups.all()
    assert (group.name, group.limit, group.occupants, group.blocked) == ("a", 1, 1, 1)


async def test_a_job_that_sql_enqueues_has_its_tags(storage, database):
    [(plain,)] = await database.rows("SELECT forge_jobs.enqueue('work', tags => ARRAY['b', 'a', 'b'])")
    replaced = "SELECT forge_jobs.enqueue('work', key => 'k', key_mode => 'replace', tags => ARRAY['{tag}'])"
    [(keyed,)] = await database.rows(replaced.format(tag="c"))
    assert await database.rows(replaced.format(tag="a")) == [(keyed,)]

    assert (await storage.jobs.get(plain)).tags == ("a", "b")
    assert [found.id for found in await storage.jobs.find(with_tags=("a",))] == [keyed, plain]
    assert await storage.jobs.find(with_tags=("c",)) == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("ARRAY['a', NULL]", "tags is {a,NULL}, allowed are tags of 1 to 64 printable characters."),
        ("ARRAY['']", 'tags is {""}, allowed are tags of 1 to 64 printable characters.'),
        (
            "ARRAY[repeat('x', 65)]",
            f"tags is {'{' + 'x' * 65 + '}'}, allowed are tags of 1 to 64 printable characters.",
        ),
        (
            "(SELECT array_agg(one::text) FROM generate_series(1, 11) AS one)",
            "tags has 11 entries, allowed are at most 10.",
        ),
    ],
)
async def test_sql_is_told_of_wrong_tags(storage, database, tags, said):
    with pytest.raises(asyncpg.PostgresError) as raised:
        await database.rows(f"SELECT forge_jobs.enqueue('work', tags => {tags})")

    assert str(raised.value) == said


ARGUMENTS = ("", "5000", "NULL", "NULL", "50", "ARRAY['a']")
"""Of the statements that look for jobs, from $1 on."""


async def test_a_page_of_jobs_with_a_tag_is_read_along_an_index(storage, database):
    await database.run("SELECT setval('forge_jobs.job_id_seq', 1, false)")  # the page begins below 5000
    await database.run(
        "INSERT INTO forge_jobs.job (queue_id, priority, max_attempts, kind, codec, created_at, payload, tags) "
        "SELECT 1, 0, 5, 'work', 'json', now(), '', CASE WHEN n % 3 = 0 THEN ARRAY['a'] END "
        "FROM generate_series(1, 5000) AS n"
    )
    await database.run("ANALYZE forge_jobs.job, forge_jobs.job_tag")

    plans = [
        await database.rows(
            "EXPLAIN "
            + re.sub(r"\$(\d)", lambda number: ARGUMENTS[int(number[1])], statement).replace(
                "{schema}", "forge_jobs"
            )
        )
        for statement in (job_rows.TAGGED[None], job_rows.TAGGED[State.PENDING])
    ]
    await database.run("DELETE FROM forge_jobs.job")

    for plan in plans:
        text = "\n".join(line for (line,) in plan)
        assert "Index Only Scan Backward using job_tag_pkey" in text, text
    assert await database.rows("SELECT * FROM forge_jobs.job_tag") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("group_name => ''", 'group_name is "", allowed are 1 to 128 characters.'),
        (
            "group_name => 'a', group_limit => 0",
            "group_limit is 0, allowed is a whole number from 1 to 1000.",
        ),
        (
            "group_name => 'a', overflow => 'x'",
            'overflow is "x", allowed is one of wait, drop_newest, cancel_running.',
        ),
        ("group_limit => 2", "group_limit or overflow is given and group_name is not, allowed is both."),
    ],
)
async def test_sql_is_told_of_a_wrong_group(storage, database, arguments, said):
    with pytest.raises(asyncpg.PostgresError) as raised:
        await database.rows(f"SELECT forge_jobs.enqueue('work', {arguments})")

    assert str(raised.value) == said


@pytest.mark.parametrize(
    "options", ["", ", key => 'k'", ", key => 'k', key_mode => 'replace'", ", group_name => 'a'"]
)
async def test_a_job_that_sql_enqueues_has_its_time_limits(storage, database, clock, options):
    await database.rows(
        "SELECT forge_jobs.enqueue('work', start_by => now() + interval '1 minute', "
        f"deadline => now() + interval '1 hour'{options})"
    )
    epoch = await leader(storage)
    await storage.schedule.make_pending()
    [found] = await storage.jobs.find()
    assert found.deadline - found.start_by == timedelta(minutes=59)

    await clock.advance(minutes=2)
    await storage.time_limits.expire(epoch=epoch)

    assert (await storage.jobs.get(found.id)).state is State.EXPIRED


async def test_a_job_that_sql_enqueues_has_the_time_limits_that_its_kind_declares(storage, database):
    kind = Kind("work", start_by=timedelta(minutes=1), deadline=timedelta(hours=1))
    await storage.kinds.declare([kind], by="a test")

    await database.rows("SELECT forge_jobs.enqueue('work')")

    [found] = await storage.jobs.find()
    assert found.deadline - found.start_by == timedelta(minutes=59)


@pytest.mark.parametrize("retention", [timedelta(0), timedelta(days=1)])
async def test_jobs_that_end_since_their_time_is_over_are_told_and_leave_their_groups_whatever_fails_then(
    storage, database, clock, monkeypatch, retention
):
    await storage.queues.set("default", {"dead_retention": retention})
    epoch = await leader(storage)
    group = encoded([Group("a"), Group("b")])
    late = [await enqueue(storage, groups=group, start_by=timedelta(minutes=1)) for _ in range(2)]
    heirs = [await enqueue(storage, groups=encoded([Group(name)])) for name in "ab"]
    assert [await state(storage, one) for one in heirs] == [State.BLOCKED, State.BLOCKED]
    await clock.advance(minutes=2)

    lost = []
    real = PostgresDatabase.transaction

    @contextlib.asynccontextmanager
    async def transaction(self, connection=None):
        async with real(self, connection) as given:
            yield given
        lost.append(True)

    def failing(call):
        async def answer(self, *arguments, connection=None, **options):
            if lost and connection is None:
                raise StorageUnavailable("the database is gone")
            return await call(self, *arguments, connection=connection, **options)

        return answer

    with monkeypatch.context() as broken:
        broken.setattr(PostgresDatabase, "transaction", transaction)
        for name in ("execute", "fetch", "fetchrow", "fetchval"):
            broken.setattr(PostgresDatabase, name, failing(getattr(PostgresDatabase, name)))
        ended, next_in = await storage.time_limits.expire(epoch=epoch)

    assert lost and sorted(job.job_id for job in ended) == late and next_in is None
    await storage.schedule.make_pending()
    assert [await state(storage, one) for one in heirs] == [State.PENDING, State.PENDING]


@pytest.mark.parametrize("options", ["", ", key => 'k'", ", key => 'k', key_mode => 'replace'"])
async def test_a_job_that_sql_enqueues_for_the_past_has_time_limits_from_now(
    storage, database, clock, options
):
    now = await clock.freeze()
    await storage.kinds.declare([Kind("work", start_by=timedelta(minutes=1))], by="a test")

    await database.rows(f"SELECT forge_jobs.enqueue('work', run_at => now() - interval '1 hour'{options})")

    [found] = await storage.jobs.find()
    assert abs(found.start_by - (now + timedelta(minutes=1))) < timedelta(seconds=1)


async def test_a_job_that_sql_replaces_and_that_keeps_its_time_has_the_time_limits_of_its_kind_from_then(
    storage, database, clock
):
    now = await clock.freeze()
    await enqueue(storage, key="k", delay=timedelta(hours=1))
    await storage.kinds.declare([Kind("work", start_by=timedelta(minutes=1))], by="a test")

    await database.rows("SELECT forge_jobs.enqueue('work', key => 'k', key_mode => 'preserve_run_at')")

    [found] = await storage.jobs.find()
    assert found.start_by == now + timedelta(hours=1, minutes=1)


@pytest.mark.parametrize(
    "arguments",
    [
        "run_at => '2030-01-02', start_by => '2030-01-01'",
        "run_at => '2030-01-02', deadline => '2030-01-02'",
        "start_by => '2030-01-02', deadline => '2030-01-01'",
    ],
)
async def test_sql_is_told_of_time_limits_that_no_job_can_keep(storage, database, arguments):
    with pytest.raises(asyncpg.PostgresError, match=r"allowed is a (later )?moment"):
        await database.rows(f"SELECT forge_jobs.enqueue('work', {arguments})")
    assert await storage.jobs.find() == []


async def test_whoever_removes_a_job_in_a_transaction_keeps_no_other_of_its_group_waiting(storage, postgres):
    group = {"groups": encoded([Group("a", limit=2)])}
    me = await worker(storage)
    await enqueue(storage, **group)
    [running] = await claim(storage, me)
    await enqueue(storage, key="k", **group)
    blocked = await enqueue(storage, **group)

    async with postgres.transaction() as connection:
        assert await storage.keys.remove("work", "k", connection=connection) is Removed.DELETED

        assert await storage.claims.finish([done(running)]) == []
        assert await state(storage, blocked) is State.PENDING

    assert await storage.jobs.counts()


async def test_a_job_behind_one_that_was_removed_from_the_lines_of_two_groups_gets_its_places(storage):
    both = {"groups": encoded([Group("a"), Group("b")])}
    me = await worker(storage)
    await enqueue(storage, groups=encoded([Group("a")]))
    [in_a] = await claim(storage, me)
    await enqueue(storage, groups=encoded([Group("b")]))
    [in_b] = await claim(storage, me)
    await enqueue(storage, key="k", **both)
    sibling = await enqueue(storage, **both)
    await storage.claims.finish([done(in_a)])
    await storage.keys.remove("work", "k")
    await storage.claims.finish([done(in_b)])

    assert await state(storage, sibling) is State.PENDING


async def test_jobs_that_somebody_locks_for_a_moment_rise_at_the_next_look(postgres, storage, clock):
    await clock.freeze()
    queue_id = (await storage.queues.set("default", {"age_after": timedelta(minutes=10)})).id
    epoch = await leader(storage)
    waiting = []
    for _ in range(3):
        waiting.append(await enqueue(storage, priority=5))
        await clock.advance(seconds=1)
    await clock.advance(minutes=10)
    await enqueue(storage, priority=0)

    async def risen():
        return [(await storage.jobs.get(job_id)).risen for job_id in waiting]

    async with postgres.transaction() as connection:
        await connection.fetch(
            "SELECT FROM forge_jobs.ready WHERE job_id = ANY ($1::bigint[]) FOR UPDATE", waiting[:2]
        )
        last = await storage.ageing.rise(queue_id, epoch=epoch, limit=2)
        assert (last.jobs, last.is_full) == (0, True)
        while last.is_full:
            last = await storage.ageing.rise(queue_id, epoch=epoch, after=last, limit=2)
        held = await risen()
    last = await storage.ageing.rise(queue_id, epoch=epoch, after=last)

    assert held == [0, 0, 1]
    assert await risen() == [1, 1, 1]


async def test_bulks_of_the_same_tenants_in_other_orders_do_not_wait_for_each_other(
    storage, another, postgres, monkeypatch
):
    monkeypatch.setattr(tenants, "TOGETHER", 1)
    monkeypatch.setattr(contention, "TRIES", 1)
    monkeypatch.setattr(enqueue_module, "SMALL_BATCH", 0)
    names = [f"{letter}{number}" for letter in "aBcD" for number in range(15)]

    async def enqueue_all(mine, order):
        for _ in range(3):
            await mine.jobs.enqueue_many([job(tenant=name) for name in order])

    await asyncio.gather(enqueue_all(storage, names), enqueue_all(await another(), names[::-1]))

    assert len(await storage.jobs.find(state=State.PENDING, limit=1000)) == 6 * len(names)


async def test_sql_cannot_store_open_arguments_of_a_sealed_kind(postgres, storage):
    await storage.kinds.declare([Kind("pay", codec="sealed", redact=True, sealed=True)], by="a test")

    for call in ("enqueue('pay', '{\"card\": 1}')", "enqueue_bytes('pay', '[1]')"):
        with pytest.raises(asyncpg.InvalidParameterValueError) as error:
            await postgres.rows(f"SELECT forge_jobs.{call}")
        assert str(error.value) == (
            'Jobs of kind "pay" are sealed, and the payload is json; allowed is the codec "sealed", by enqueue_bytes, '
            "or no arguments."
        )
    await postgres.rows("SELECT forge_jobs.enqueue('pay')")
    await postgres.rows("SELECT forge_jobs.enqueue_bytes('pay', '\\xc15331016100'::bytea, codec => 'sealed')")
    assert [job.codec for job in await storage.jobs.find(limit=9)] == ["sealed", "sealed"]


async def test_sql_tells_which_keys_have_sealed_jobs(postgres, storage):
    page = (Path(__file__).parents[3] / "docs" / "codecs.md").read_text(encoding="utf-8")
    statement = page.partition("```sql\n")[2].partition("```")[0].replace(";", "")
    for keys in ({"2026-11": bytes(32)}, {"2026-11": bytes(32)}, {"old": bytes(32)}):
        await enqueue(storage, payload=sealed(keys=keys).wrap(b"{}"), codec="sealed")
    await enqueue(storage)

    assert sorted(await postgres.rows(statement)) == [("2026-11", 2), ("old", 1)]

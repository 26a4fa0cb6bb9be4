"""A bulk of any size is sent in pieces, and is all or nothing all the same."""

from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidPayload
from forge_jobs.model.job import Alike, Enqueued, State
from forge_jobs.storage import pieces
from forge_jobs.storage.postgres import enqueue as postgres_enqueue
from tests.storage.factories import claim_ids, enqueue, job, state, worker


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "LARGEST_PIECE", 3)
    monkeypatch.setattr(pieces, "LARGEST_BYTES", 100)
    monkeypatch.setattr(postgres_enqueue, "SMALL_BATCH", 3)


def test_a_piece_is_bounded_in_jobs_and_in_bytes():
    sizes = [10, 10, 10, 10, 60, 60, 500, 1, 1]

    made = pieces.pieces([job(payload=bytes(size)) for size in sizes])

    assert [[len(one.payload) for one in piece] for piece in made] == [
        [10, 10, 10],
        [10, 60],
        [60],
        [500],
        [1, 1],
    ]


async def test_all_pieces_of_a_bulk_are_answered_and_claimed_in_order(storage):
    answers = await storage.jobs.enqueue_many(Alike(job(), range(20), lambda number: bytes(number * 10 % 70)))

    ids = [one.id for one in answers]
    assert ids == sorted(set(ids))
    assert len(ids) == 20
    assert await claim_ids(storage, await worker(storage)) == ids


async def test_a_payload_of_a_later_piece_that_cannot_be_encoded_leaves_nothing(storage):
    def encode(number):
        if number == 17:
            raise InvalidPayload("17 cannot be encoded.")
        return b"{}"

    with pytest.raises(InvalidPayload, match="17"):
        await storage.jobs.enqueue_many(Alike(job(), range(20), encode))

    assert (await storage.jobs.counts())[0].pending == 0


async def test_a_key_of_an_earlier_piece_is_held_in_a_later_one(storage):
    answers = await storage.jobs.enqueue_many(
        [job(key=key) for key in ("a", "b", "c", "d", "a", "e", "c", "f")]
    )

    assert [one.duplicate for one in answers] == [False, False, False, False, True, False, True, False]
    assert answers[4] == Enqueued(answers[0].id, duplicate=True)
    assert answers[6] == Enqueued(answers[2].id, duplicate=True)


async def test_delayed_jobs_of_all_pieces_are_scheduled(storage, clock):
    answers = await storage.jobs.enqueue_many([job(delay=timedelta(minutes=1))] * 10)
    first = await enqueue(storage)

    assert {await state(storage, one.id) for one in answers} == {State.SCHEDULED}
    assert await claim_ids(storage, await worker(storage)) == [first]
    await clock.advance(minutes=2)
    assert (await storage.schedule.make_pending())[0] == 10

"""A program runs an ended job again with other arguments, which are those of its handler."""

import pytest

from forge_jobs import Flow, Forge, InvalidInput, InvalidPayload, Worker, WrongState
from forge_jobs.codecs.encoded import Encoded

SENT: list[str] = []


@pytest.fixture
async def forge(tmp_path):
    forge = Forge(f"sqlite:///{tmp_path}/q.sqlite")
    SENT.clear()

    @forge.handler(max_attempts=1)
    async def send(to: str) -> None:
        if "@" not in to:
            raise ValueError(f"{to} is no address")
        SENT.append(to)

    async with forge:
        yield forge


async def dead(forge):
    job = await forge.enqueue("send", {"to": "ada"})
    await Worker(forge, queues=["default"]).run(until_empty=True)
    return job


async def test_a_job_is_run_again_with_other_arguments(forge):
    old = await dead(forge)

    new = await forge.jobs.rerun(old, {"to": "ada@example.com"})
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert SENT == ["ada@example.com"]
    assert (await forge.jobs.get(new)).payload == b'{"to":"ada@example.com"}'
    assert (await forge.jobs.get(old)).payload == b'{"to":"ada"}'


async def test_a_node_of_a_flow_is_not_run_again_by_itself(forge):
    handler = forge.handlers["send"]
    started = await forge.flows.start(Flow("post").and_then(handler, to="ada"))
    await Worker(forge, queues=["default"]).run(until_empty=True)
    [node] = started.jobs.values()

    with pytest.raises(WrongState) as refused:
        await forge.jobs.rerun(node)

    assert str(refused.value) == (
        f"Job {node} is dead; it is a node of flow {started.id}, which is retried or started anew as a whole."
    )


async def test_a_payload_that_is_encoded_already_is_taken_as_it_is(forge):
    new = await forge.jobs.rerun(await dead(forge), Encoded(b"\x81\xa2to\xa1@", "msgpack"))

    job = await forge.jobs.get(new)
    assert (job.payload, job.codec) == (b"\x81\xa2to\xa1@", "msgpack")


@pytest.mark.parametrize(
    ("payload", "error"),
    [({"to": 7}, InvalidPayload), ({"cc": "ada"}, InvalidPayload), (["ada"], InvalidInput)],
)
async def test_arguments_that_do_not_fit_the_handler_are_refused(forge, payload, error):
    old = await dead(forge)

    with pytest.raises(error):
        await forge.jobs.rerun(old, payload)

    assert (await forge.jobs.get(old)).reruns == ()


async def test_a_kind_without_a_handler_here_takes_any_arguments(tmp_path):
    async with Forge(f"sqlite:///{tmp_path}/other.sqlite") as forge:
        old = await forge.enqueue("elsewhere", {"a": 1})
        await forge.jobs.cancel(old)

        new = await forge.jobs.rerun(old, {"b": 2})

        assert (await forge.jobs.get(new)).payload == b'{"b":2}'

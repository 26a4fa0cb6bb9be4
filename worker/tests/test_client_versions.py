"""`forge.versions` and `forge.jobs.upcoming`: what is allowed, what is refused, and what people are shown."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge, WorkerInfo
from forge_jobs.errors import InvalidInput, PastEpoch
from forge_jobs.model.epoch import Epoch
from forge_jobs.model.version import Version, VersionState
from tests.command_line import CommandLine, migrated

POOL, ID = "6f0c4e1a-8e5f-4d0c-9b70-2f0d6f9a3c11", "rm452vxk"
VERSION = Version(POOL, ID, "3+build.9", "mail-worker-3-build-9-rm452vxk")


@pytest.fixture
async def forge(tmp_path: Path) -> AsyncIterator[Forge]:
    async with Forge(f"sqlite:///{tmp_path}/queue.sqlite") as forge:
        yield forge


@pytest.fixture
def cli(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    yield migrated(tmp_path, capsys, monkeypatch)


async def test_an_operator_makes_promotes_and_deletes_versions(forge: Forge) -> None:
    epoch = await forge.versions.take_over("operator-0")
    assert (epoch.holder, epoch.number) == ("operator-0", 1)

    assert await forge.versions.put(VERSION, epoch=epoch.number)
    assert await forge.versions.put(replace(VERSION, id="rm452vxz"), epoch=epoch.number)
    assert await forge.versions.promote(POOL, ID, epoch=epoch.number)
    assert not await forge.versions.move(POOL, ID, "draining", epoch=epoch.number)
    assert await forge.versions.move(POOL, "rm452vxz", "failed", epoch=epoch.number)
    assert not await forge.versions.delete(POOL, ID, epoch=epoch.number)
    assert await forge.versions.delete(POOL, "rm452vxz", epoch=epoch.number)
    await forge.versions.cordon([], True, epoch=epoch.number)

    [found] = await forge.versions.all(POOL)
    assert (found.state, found.is_open, found.version) == (VersionState.CURRENT, True, "3+build.9")
    assert await forge.versions.forget(POOL, epoch=epoch.number)
    assert await forge.versions.all() == []


async def test_an_operator_of_a_past_epoch_is_told_so(forge: Forge) -> None:
    first = await forge.versions.take_over("operator-0")
    await forge.versions.take_over("operator-1")

    assert first == Epoch("operator-0", 1)
    with pytest.raises(PastEpoch, match=r"."):
        await forge.versions.put(VERSION, epoch=first.number)


async def test_an_operator_of_a_past_epoch_configures_nothing(forge: Forge) -> None:
    first = await forge.versions.take_over("operator-0")
    named: dict[str, Any] = {"managed_by": "mine", "epoch": first.number}
    await forge.queues.ensure("mail", epoch=first.number)
    await forge.queues.set("mail", **named)
    await forge.limits.set("mail", 5, refill=0, **named)
    await forge.crons.set("nightly", "@daily", "send", **named)
    before = await forge.queues.list(), await forge.limits.list(), await forge.crons.list()
    await forge.versions.take_over("operator-1")

    for refused in (
        forge.queues.ensure("other", epoch=first.number),
        forge.queues.set("mail", concurrency=1, **named),
        forge.queues.manage("mail", None, previous="mine", epoch=first.number),
        forge.limits.set("mail", 1, refill=1, **named),
        forge.limits.delete("mail", **named),
        forge.crons.set("nightly", "@hourly", "send", **named),
        forge.crons.delete("nightly", **named),
    ):
        with pytest.raises(PastEpoch, match=r"^Epoch 1 is not the present one: another operator .*\.$"):
            await refused

    assert (await forge.queues.list(), await forge.limits.list(), await forge.crons.list()) == before


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"pool": ""}, "The pool is '', allowed are 1 to 128 characters of"),
        ({"pool": "a pool"}, "The pool is 'a pool', allowed are"),
        ({"pool": None}, "The pool is None, allowed are"),
        ({"id": "v3"}, "The version's id is 'v3', allowed are 8 characters of a-z and 0-9."),
        ({"id": 12345678}, "The version's id is 12345678, allowed are"),
        ({"version": ""}, "The version is '', allowed are 1 to 512 printable characters."),
        ({"version": "a\n"}, r"The version is 'a\\n', allowed are"),
        ({"deployment": "x" * 513}, "The Deployment is 'x"),
        ({"state": "open"}, "state is 'open', allowed is one of pending, ramping, current,"),
        ({"weight_percent": 101}, "weight_percent is 101, allowed is a whole number from 0 to 100."),
    ],
)
async def test_a_wrong_version_is_refused(forge: Forge, facts: dict[str, Any], said: str) -> None:
    epoch = (await forge.versions.take_over("operator")).number

    with pytest.raises(InvalidInput, match=f"^{said}".replace("+", r"\+")):
        await forge.versions.put(replace(VERSION, **facts), epoch=epoch)

    assert await forge.versions.all() == []


async def test_wrong_arguments_are_refused(forge: Forge) -> None:
    versions = forge.versions
    for refused in (
        versions.take_over(""),
        versions.put(VERSION, epoch=-1),
        versions.put(VERSION, epoch=Epoch("operator", 1)),  # type: ignore[arg-type]
        versions.promote("a pool", ID, epoch=1),
        versions.promote(POOL, "ID", epoch=1),
        versions.move(POOL, ID, "open", epoch=1),
        versions.move(POOL, ID, "ramping", weight_percent=-1, epoch=1),
        versions.delete(POOL, "", epoch=1),
        versions.forget("a pool", epoch=1),
        versions.forget(POOL, epoch=-1),
        versions.cordon(["1"], True, epoch=1),  # type: ignore[list-item]
        versions.cordon([1], "yes", epoch=1),  # type: ignore[arg-type]
        versions.all(""),
        forge.queues.ensure("mail", epoch=-1),
        forge.queues.set("mail", epoch="1"),  # type: ignore[arg-type]
        forge.queues.manage("default", None, epoch=True),
        forge.limits.set("mail", 1, refill=1, epoch=-1),
        forge.limits.delete("mail", epoch=-1),
        forge.crons.set("nightly", "@daily", "send", epoch=Epoch("operator", 1)),  # type: ignore[arg-type]
        forge.crons.delete("nightly", epoch=-1),
        forge.jobs.upcoming(-1),
        forge.jobs.upcoming("1h"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInput, match=r"allowed (is|are) "):
            await refused


async def test_what_is_due_soon_is_told_in_seconds_or_a_timedelta(forge: Forge) -> None:
    await forge.enqueue("send", delay=60)

    assert await forge.jobs.upcoming(59) == {}
    assert {queue: jobs for queue, (jobs, _) in (await forge.jobs.upcoming(60)).items()} == {"default": 1}
    assert (await forge.jobs.upcoming(timedelta(days=365_000))).keys() == {"default"}


def test_workers_are_listed_with_their_version_and_its_state(cli: CommandLine) -> None:
    cli.using(_pool)

    listed = cli("workers", "list").lines

    assert listed[0].split() == "worker state queues running host heard from up leads version pool".split()
    assert [line.split()[:2] for line in listed[1:]] == [["a", "cordoned"], ["b", "alive"], ["c", "alive"]]
    assert listed[1].endswith(f"rm452vxk pending  {POOL}")
    assert listed[2].endswith(f"rm452vxz          {POOL}")  # an operator does not know it
    assert POOL not in listed[3]
    document = cli.fine("workers", "list")[0]
    assert (document["pool"], document["version_id"], document["pod"]) == (POOL, ID, "a-pod")
    assert (document["cordoned"], document["acknowledged"], document["succeeded"]) == (True, False, 0)


async def _pool(forge: Forge) -> None:
    epoch = (await forge.versions.take_over("operator")).number
    await forge.versions.put(VERSION, epoch=epoch)
    one = WorkerInfo(
        1, "a", "host", 1, "3", ("default",), ("send",), 10, pool=POOL, version_id=ID, pod="a-pod"
    )
    for info in (
        one,
        replace(one, id=2, label="b", version_id="rm452vxz"),
        replace(one, id=3, label="c", pool=None, version_id=None),
    ):
        await forge.storage.workers.register(info)
    await forge.versions.cordon([1], True, epoch=epoch)


def test_without_pools_workers_are_listed_as_ever(cli: CommandLine) -> None:
    async def register(forge: Forge) -> None:
        info = WorkerInfo(1, "a", "host", 1, "3", ("default",), ("send",), 10)
        await forge.storage.workers.register(info)

    cli.using(register)

    assert "version" not in cli("workers", "list").lines[0]


def test_why_says_that_the_gate_of_those_who_could_run_a_job_is_closed(cli: CommandLine) -> None:
    job = cli.fine("enqueue", "send")
    cli.using(_pool)
    assert "Nothing holds it back" in cli("jobs", "why", str(job["id"])).out

    async def close(forge: Forge) -> None:
        epoch = (await forge.versions.take_over("operator")).number
        await forge.versions.cordon([2, 3], True, epoch=epoch)

    cli.using(close)
    assert "No worker that could run it may claim" in cli("jobs", "why", str(job["id"])).out

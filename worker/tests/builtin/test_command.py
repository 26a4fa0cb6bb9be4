"""The kind `command`, with real processes: what it says, and that nothing of it is left."""

import asyncio
import functools
import gc
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from forge_jobs import Settings, State
from forge_jobs.builtin.output import KEPT, LONGEST_LINE
from forge_jobs.errors import InvalidPayload, InvalidSetting
from forge_jobs.system import process_group
from forge_jobs.system.guard import guard
from tests.builtin.conftest import Runs, served
from tests.builtin.family import Family, lives
from tests.working.eventually import eventually

PYTHON = sys.executable


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return Family(tmp_path / "family")


async def test_exit_0_is_done_with_what_was_written(runs: Runs) -> None:
    result = await runs.done("command", argv=["sh", "-c", "echo out; echo err >&2"])

    assert result == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n"}


async def test_no_shell_looks_at_the_arguments(runs: Runs) -> None:
    result = await runs.done("command", argv=["printf", "%s|", "$HOME", "a b", "*", ""])

    assert result["stdout"] == "$HOME|a b|*||"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("echo out; echo worse >&2; exit 3", "exit 3: worse"),
        ("echo out; exit 1", "exit 1: out"),
        ("exit 127", "exit 127"),
        ("kill -9 $$", "killed by signal 9 (SIGKILL)"),
        ("echo bye; kill -TERM $$", "killed by signal 15 (SIGTERM): bye"),
    ],
)
async def test_another_end_is_a_failure_in_one_sentence(runs: Runs, script: str, error: str) -> None:
    assert await runs.error("command", argv=["sh", "-c", script]) == error


async def test_a_failure_shows_the_last_256_bytes(runs: Runs) -> None:
    error = await runs.error("command", argv=["sh", "-c", "printf '%0300d' 7; exit 1"])

    assert error == f"exit 1: {'0' * 255}7"


async def test_a_failure_is_tried_again(runs: Runs, tmp_path: Path) -> None:
    await runs.forge.queues.set("default", backoff_enabled=False)
    script = (
        f'test -e {tmp_path}/seen && echo "attempt $FORGE_JOB_ATTEMPT" && exit; touch {tmp_path}/seen; exit 1'
    )

    job = await runs.forge.enqueue("command", {"argv": ["sh", "-c", script]}, queue="default")

    assert (await runs.forge.wait(job.id, timeout=30))["stdout"] == "attempt 2\n"


async def test_a_program_that_is_not_there_is_a_failure(runs: Runs) -> None:
    assert await runs.error("command", argv=["no-such-program"]) == (
        "spawn 'no-such-program': No such file or directory"
    )
    assert await runs.error("command", argv=["/etc"]) == "spawn '/etc': Permission denied"


async def test_an_empty_argv_is_refused(runs: Runs) -> None:
    with pytest.raises(InvalidPayload, match=r"length >= 1 - at `\$.argv`"):
        await runs.begin("command", argv=[])


@pytest.mark.parametrize("payload", [{"argv": ["a\0b"]}, {"argv": ["true"], "env": {"a=b": "c"}}])
async def test_what_no_process_can_be_given_makes_the_job_dead(
    runs: Runs, payload: dict[str, object]
) -> None:
    job = await runs.forge.enqueue("command", payload, queue="default")
    ended = await runs.ended(job.id)

    assert (ended.state, ended.attempt) == (State.DEAD, 1)
    assert ended.error and ended.error.startswith("spawn ")


async def test_a_command_is_given_its_input(runs: Runs) -> None:
    assert (await runs.done("command", argv=["cat"], stdin="täglich\n"))["stdout"] == "täglich\n"
    assert (await runs.done("command", argv=["cat"]))["stdout"] == ""
    assert (await runs.done("command", argv=["true"], stdin="x" * 500_000))["exit_code"] == 0


async def test_a_command_gets_its_variables_but_not_the_worker_s(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_DATABASE_URL", "postgresql://ann:secret@db/shop")
    monkeypatch.setenv("GREETING", "hello")

    job_id = await runs.begin("command", argv=["env"], env={"PLANET": "world"})
    said = dict(
        line.split("=", 1) for line in (await runs.forge.wait(job_id, timeout=30))["stdout"].splitlines()
    )

    assert (said["GREETING"], said["PLANET"]) == ("hello", "world")
    assert {name: value for name, value in said.items() if name.startswith("FORGE_")} == {
        "FORGE_JOB_ID": str(job_id),
        "FORGE_JOB_ATTEMPT": "1",
        "FORGE_JOB_QUEUE": "default",
    }


async def test_a_command_runs_in_the_folder_that_it_names(runs: Runs, tmp_path: Path) -> None:
    assert (await runs.done("command", argv=["pwd", "-P"], cwd=str(tmp_path)))["stdout"] == f"{tmp_path}\n"
    assert (await runs.done("command", argv=["pwd", "-P"]))["stdout"] == f"{Path.cwd()}\n"


async def test_a_folder_that_is_none_is_rejected(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    said = [
        await runs.error("command", argv=["true"], cwd=f"{tmp_path}/{name}") for name in ("no", "file", "\0")
    ]

    assert said == [
        f"cwd rejected: '{tmp_path}/no': No such file or directory",
        f"cwd rejected: '{tmp_path}/file' is not a folder",
        f"cwd rejected: '{tmp_path}/\\x00': embedded null byte",
    ]


async def test_a_command_does_not_leave_its_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "link").symlink_to(tmp_path)
    (tmp_path / "root-of-others").mkdir()
    async with served(tmp_path, command_root=root) as runs:
        where = [
            (await runs.done("command", argv=["pwd", "-P"], cwd=cwd))["stdout"].strip()
            for cwd in (None, "inner", str(root / "inner"))
        ]
        errors = [
            await runs.error("command", argv=["pwd"], cwd=cwd)
            for cwd in ("/", "..", "inner/../..", "link", "../root-of-others")
        ]

    assert where == [str(root), str(root / "inner"), str(root / "inner")]
    assert all(error.startswith("cwd rejected: ") and str(root) in error for error in errors), errors


async def test_output_is_logged_line_by_line_while_it_runs(
    runs: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="forge_jobs.command")
    script = f"echo first; echo oops >&2; until test -e {tmp_path}/go; do sleep 0.02; done; printf last"

    job_id = await runs.begin("command", argv=["sh", "-c", script])
    await eventually(lambda: {"first", "oops"} <= set(caplog.messages))
    assert "last" not in caplog.messages
    (tmp_path / "go").touch()
    await runs.forge.wait(job_id, timeout=30)

    said = [(r.message, r.stream) for r in caplog.records if r.name == "forge_jobs.command"]  # type: ignore[attr-defined]
    assert sorted(said) == [("first", "stdout"), ("last", "stdout"), ("oops", "stderr")]


async def test_of_much_output_the_end_is_kept(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="forge_jobs.command")

    result = await runs.done("command", argv=["sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo end"])

    assert result["stdout"] == "x" * (KEPT - 4) + "end\n"
    assert max(len(message) for message in caplog.messages) <= 2 * LONGEST_LINE


async def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(
    runs: Runs, family: Family
) -> None:
    script = family.three_generations()
    job_id = await runs.begin("command", argv=script, timeout=0.5)
    pids = await family.pids(3)

    job = await runs.ended(job_id)

    assert job.error == "timeout after 0.5 s: begun"
    assert not any(lives(pid) for pid in pids)


async def test_a_cancelled_command_is_killed_with_all_that_it_started(runs: Runs, family: Family) -> None:
    job_id = await runs.begin("command", argv=family.three_generations())
    pids = await family.pids(3)
    assert all(lives(pid) for pid in pids)

    await runs.forge.jobs.cancel(job_id)

    assert (await runs.ended(job_id)).error == "cancelled by user"
    assert not any(lives(pid) for pid in pids)


async def test_one_that_does_not_hear_sigterm_is_killed_all_the_same(
    runs: Runs, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "MOMENT", 0.2)
    job_id = await runs.begin("command", argv=family.deaf())
    pids = await family.pids(2)

    await runs.forge.jobs.cancel(job_id)

    assert (await runs.ended(job_id)).error == "cancelled by user"
    assert not any(lives(pid) for pid in pids)


async def test_one_that_hears_sigterm_may_clean_up(runs: Runs, family: Family, tmp_path: Path) -> None:
    script = (
        f"trap 'sleep 0.2; touch {tmp_path}/clean; exit' TERM; note parent $$; while :; do sleep 0.05; done"
    )
    job_id = await runs.begin("command", argv=family.script(script))
    await family.pids(1)

    await runs.forge.jobs.cancel(job_id)
    await runs.ended(job_id)

    assert (tmp_path / "clean").exists()


async def test_what_a_command_leaves_behind_is_killed_and_does_not_hold_up_its_job(
    runs: Runs, family: Family
) -> None:
    script = family.script("sleep 1000 &\nnote left $!\necho done")

    result = await runs.done("command", argv=script)

    [pid] = await family.pids(1)
    assert result["stdout"] == "done\n"
    assert not lives(pid)


async def test_one_that_escapes_with_the_pipes_does_not_hold_up_its_job(runs: Runs, family: Family) -> None:
    escape = "import os, sys, time; os.setsid(); open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(1000)"
    path = family.folder / "escaped.pid"
    script = f'"$0" -c "$1" {path} & until grep -q . {path}; do sleep 0.02; done; echo done'

    result = await runs.done("command", argv=["sh", "-c", script, PYTHON, escape])

    [pid] = await family.pids(1)
    os.kill(pid, signal.SIGKILL)
    assert result["stdout"] == "done\n"


async def test_a_worker_that_stops_kills_its_commands_and_hands_the_jobs_back(
    tmp_path: Path, family: Family
) -> None:
    async with served(tmp_path) as runs:
        runs.worker.grace = runs.worker.grace * 0
        runs.worker.session._grace = runs.worker.grace  # type: ignore[union-attr]
        job_id = await runs.begin("command", argv=family.three_generations())
        pids = await family.pids(3)

        runs.worker.stop()
        job = await eventually(lambda: runs._when(job_id, State.PENDING))

    assert job.attempt == 0
    assert not any(lives(pid) for pid in pids)


async def test_a_job_s_own_timeout_kills_its_command_too(runs: Runs, family: Family) -> None:
    argv = family.three_generations()
    job = await runs.forge.enqueue("command", {"argv": argv}, queue="default", max_attempts=1, timeout=0.5)
    pids = await family.pids(3)

    assert (await runs.ended(job.id)).error == "timed out after 0.5 s"
    assert not any(lives(pid) for pid in pids)


async def test_many_commands_at_once_leave_nothing_open(runs: Runs) -> None:
    guard.stand()  # the one of this process, which stays
    before = opened()

    ids = [await runs.begin("command", argv=["sh", "-c", f"echo {n}; exit {n % 2}"]) for n in range(60)]
    ended = [await runs.ended(job_id) for job_id in ids]

    assert {job.state for job in ended} == {State.DONE, State.DEAD}
    await eventually(lambda: opened() <= before)


def opened() -> int:
    """Return how many files are open here, but for those of the database, which has more readers when asked more."""
    links = [Path(entry.path) for entry in os.scandir("/proc/self/fd")]
    return sum(".sqlite" not in os.readlink(each) for each in links if each.is_symlink())


async def test_without_pidfds_a_command_is_waited_for_all_the_same(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_group, "_pidfd", lambda pid: None)

    assert await runs.error("command", argv=["sh", "-c", "sleep 0.1; exit 4"]) == "exit 4"


async def test_a_group_is_dead_also_when_whoever_ends_it_is_told_to_stop(
    family: Family, tmp_path: Path
) -> None:
    with open(os.devnull, "r+b") as nothing:
        group = process_group.ProcessGroup(
            family.deaf(),
            env=dict(os.environ),
            cwd=tmp_path,
            stdin=nothing,
            stdout=nothing.fileno(),
            stderr=nothing.fileno(),
        )
    pids = await family.pids(2)
    ending = asyncio.create_task(group.end())
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending

    await eventually(lambda: not any(lives(pid) for pid in pids), within=5)
    await group.end()


async def test_a_group_whose_end_nobody_waits_for_leaves_no_zombie_once_another_begins(
    family: Family, tmp_path: Path
) -> None:
    with open(os.devnull, "r+b") as nothing:
        begun = functools.partial(
            process_group.ProcessGroup,
            env=dict(os.environ),
            cwd=tmp_path,
            stdin=nothing,
            stdout=nothing.fileno(),
            stderr=nothing.fileno(),
        )
        killed = begun(family.deaf())
        await family.pids(2)
        killing = asyncio.create_task(killed.kill())
        await asyncio.sleep(0)
        killing.cancel()
        await asyncio.wait([killing])
        del killed, killing
        gc.collect()  # a process that is forgotten while it may live says so here, which fails the test
        leader = int((family.folder / "parent.pid").read_text())
        await eventually(lambda: not lives(leader), within=30)

        another = begun(["true"])

    assert not Path(f"/proc/{leader}").exists()
    await another.kill()


async def test_ending_what_has_ended_takes_no_time(tmp_path: Path) -> None:
    with open(os.devnull, "r+b") as nothing:
        group = process_group.ProcessGroup(
            ["true"],
            env=dict(os.environ),
            cwd=tmp_path,
            stdin=nothing,
            stdout=nothing.fileno(),
            stderr=nothing.fileno(),
        )
    await group.exited()
    before = time.monotonic()

    await group.end()

    assert time.monotonic() - before < process_group.MOMENT


def test_the_root_of_commands_has_to_be_there(tmp_path: Path) -> None:
    environ = {"FORGE_COMMAND_ROOT": str(tmp_path / "x" / "..")}
    with pytest.raises(InvalidSetting, match="allowed is a folder that exists"):
        Settings.load(environ, tmp_path)

    (tmp_path / "x").mkdir()

    assert Settings.load(environ, tmp_path).command_root == tmp_path

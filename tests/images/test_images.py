"""What the images promise, shown by running them."""

import asyncio
import json
import socket
import tomllib
from pathlib import Path

import pytest

from forge_jobs import Forge, State
from tests.images import engine as engines
from tests.images.engine import ROOT, Engine

pytestmark = pytest.mark.timeout(900)  # the first one builds

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

# What "restricted" pod security gives a container, and a root filesystem that is read-only.
RESTRICTED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
)

TOOLS = "pip pip3 gcc cc g++ clang make ld as cargo git curl wget".split()

ZOMBIES = """
import pathlib
states = [path.read_text().rpartition(")")[2].split()[0] for path in pathlib.Path("/proc").glob("[0-9]*/stat")]
print(states.count("Z"))
"""


@pytest.fixture(params=["worker_image", "operator_image"])
def image(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


def settings(database: str) -> dict[str, str]:
    return {"FORGE_DATABASE_URL": database, "FORGE_QUEUES": "default", "FORGE_METRICS_PORT": "-1"}


def test_it_runs_as_a_user_without_rights(engine: Engine, image: str) -> None:
    program = "import os, pwd; print(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name)"

    assert engine.python(image, program) == "10001 10001 forge"
    # By number: Kubernetes cannot see that a name is not root's.
    assert engine.do("image", "inspect", "--format", "{{.Config.User}}", image) == "10001:10001"


def test_it_may_change_nothing_of_its_own(engine: Engine, image: str) -> None:
    program = """
import os
def paths(top):
    yield top
    for folder, folders, files in os.walk(top):
        yield from (os.path.join(folder, name) for name in folders + files)
print([path for top in ("/app", "/opt", "/usr", "/etc") for path in paths(top)
       if os.access(path, os.W_OK) and not os.path.islink(path)])
"""

    assert engine.python(image, program) == "[]"


def test_nothing_in_it_builds_or_installs(engine: Engine, image: str) -> None:
    program = f"""
import importlib.util, shutil
print([tool for tool in {TOOLS!r} if shutil.which(tool)],
      [name for name in ("pip", "ensurepip", "setuptools", "wheel") if importlib.util.find_spec(name)])
"""

    assert engine.python(image, program) == "[] []"


def test_its_modules_are_compiled_ahead(engine: Engine, image: str) -> None:
    program = """
import importlib.util, pathlib, forge_jobs
files = list(pathlib.Path(forge_jobs.__file__).parent.parent.rglob("*.py"))
bare = [str(file) for file in files if not pathlib.Path(importlib.util.cache_from_source(file)).exists()]
print(len(files) > 500, bare)
"""

    assert engine.python(image, program) == "True []"


def test_it_says_what_it_is(engine: Engine, image: str) -> None:
    labels = json.loads(engine.do("image", "inspect", "--format", "{{json .Config.Labels}}", image))

    assert labels["org.opencontainers.image.title"] == image.removesuffix(":test")
    assert labels["org.opencontainers.image.licenses"] == "MIT OR Apache-2.0"
    assert labels["org.opencontainers.image.version"] == VERSION


def test_the_worker_says_its_version(engine: Engine, worker_image: str) -> None:
    ended = engine.run(worker_image, "--version", options=RESTRICTED)

    assert (ended.returncode, ended.stdout.strip()) == (0, f"forge-jobs {VERSION}")


def test_the_operator_has_all_that_it_stands_on(engine: Engine, operator_image: str) -> None:
    program = "import forge_operator.__main__, kopf, kubernetes.aio; print('fine')"

    assert engine.python(operator_image, program, *RESTRICTED) == "fine"


def test_a_worker_without_queues_says_what_is_missing(engine: Engine, worker_image: str) -> None:
    ended = engine.run(worker_image, options=RESTRICTED, env={"JOBS_DATA_DIR": "/tmp"})

    assert ended.returncode == 2
    assert ended.stderr.startswith("No queue is declared, ")
    assert "Traceback" not in ended.stderr


def test_it_migrates_a_database(engine: Engine, worker_image: str, database: str) -> None:
    env = {"FORGE_DATABASE_URL": database}

    first, again = (engine.run(worker_image, "db", "migrate", options=RESTRICTED, env=env) for _ in range(2))

    assert "applied" in first.stdout, first.stderr
    assert "nothing to do" in again.stdout, again.stderr


def test_it_works_for_whatever_user_a_cluster_gives_it(
    engine: Engine, worker_image: str, database: str
) -> None:
    options = [*RESTRICTED, "--user", "1000670000:0"]

    ended = engine.run(worker_image, "db", "migrate", options=options, env={"FORGE_DATABASE_URL": database})

    assert ended.returncode == 0, ended.stderr


async def test_it_runs_each_built_in_kind(
    engine: Engine, worker_image: str, database: str, forge: Forge
) -> None:
    env = settings(database) | {"FORGE_METRICS_PORT": str(_free_port())}
    with engine.running(worker_image, options=RESTRICTED, env=env):
        jobs = {
            "echo": await forge.enqueue("echo", {"hello": "world"}),
            "sleep": await forge.enqueue("sleep", {"seconds": 0.1}),
            "command": await forge.enqueue("command", {"argv": ["id", "-u"]}),
            "http": await forge.enqueue(
                "http", {"url": f"http://127.0.0.1:{env['FORGE_METRICS_PORT']}/healthz", "method": "GET"}
            ),
        }
        results = {kind: await forge.wait(job.id, timeout=60) for kind, job in jobs.items()}

    assert results["echo"] == {"hello": "world"}
    assert results["sleep"] is None
    assert results["command"]["stdout"] == "10001\n"
    assert (results["http"]["status"], json.loads(results["http"]["body"])["ok"]) == (200, True)


async def test_sigterm_lets_a_running_job_finish(
    engine: Engine, worker_image: str, database: str, forge: Forge
) -> None:
    with engine.running(worker_image, options=RESTRICTED, env=settings(database)) as container:
        job = await forge.enqueue("sleep", {"seconds": 2})
        await _becomes(forge, job.id, State.IN_PROGRESS)
        first = container.python("print(open('/proc/1/cmdline').read().split('\\0')[0])")

        code = await asyncio.to_thread(container.stop, 30)

        assert (code, (await forge.jobs.get(job.id)).state) == (0, State.DONE), container.log()
    assert first.endswith("python")


async def test_sigterm_hands_back_what_does_not_finish_in_time(
    engine: Engine, worker_image: str, database: str, forge: Forge
) -> None:
    env = settings(database) | {"FORGE_GRACE_SECONDS": "1"}
    with engine.running(worker_image, options=RESTRICTED, env=env) as container:
        job = await forge.enqueue("command", {"argv": ["sleep", "1000"]})
        await _becomes(forge, job.id, State.IN_PROGRESS)

        code = await asyncio.to_thread(container.stop, 30)

        assert code == 0, container.log()
    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)


async def test_sigterm_ends_a_worker_whose_database_does_not_answer(
    engine: Engine, worker_image: str
) -> None:
    connected = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read(-1)
        writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    env = settings(f"postgresql://nobody:nothing@127.0.0.1:{port}/none?sslmode=disable")
    async with listener:
        with engine.running(worker_image, options=RESTRICTED, env=env) as container:
            await asyncio.wait_for(connected.wait(), 60)

            code = await asyncio.to_thread(container.stop, 30)

    assert code == 0, container.log()  # it had begun nothing


async def test_what_commands_leave_behind_is_buried_by_process_1(
    engine: Engine, worker_image: str, database: str, forge: Forge
) -> None:
    with engine.running(worker_image, options=RESTRICTED, env=settings(database)) as container:
        for _ in range(5):
            job = await forge.enqueue("command", {"argv": ["sh", "-c", "sleep 1000 & sleep 1000 &"]})
            await forge.wait(job.id, timeout=60)

        zombies = container.python(ZOMBIES)

    assert zombies == "0"


async def test_an_image_of_ones_own_runs_ones_own_handlers(
    engine: Engine, worker_image: str, database: str, forge: Forge, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(
        "import requests\n"
        "from forge_jobs import Forge, builtin\n"
        "forge = Forge()\n"
        "builtin.register(forge)\n"
        "@forge.handler\n"
        "async def greet(name: str) -> str:\n"
        "    return f'hello {name}'\n"
    )
    page = (ROOT / "docs" / "built-in-kinds.md").read_text(encoding="utf-8")
    said = page.partition("```dockerfile\n")[2].partition("```")[0]
    (tmp_path / "Dockerfile").write_text(said.replace("FROM forge-jobs-worker\n", f"FROM {worker_image}\n"))
    engines.build("forge-jobs-shop:test", tmp_path)

    with engine.running("forge-jobs-shop:test", options=RESTRICTED, env=settings(database)):
        greeted = await forge.enqueue("greet", {"name": "Ada"})
        echoed = await forge.enqueue("echo", {"n": 1})

        assert await forge.wait(greeted.id, timeout=60) == "hello Ada"
        assert await forge.wait(echoed.id, timeout=60) == {"n": 1}


def test_the_images_name_their_base_and_no_registry() -> None:
    for name in ("Dockerfile.worker", "Dockerfile.operator"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert [line for line in text.splitlines() if line.startswith("FROM")] == [
            "FROM python:3.13-slim AS build",
            "FROM python:3.13-slim",
        ]


async def _becomes(forge: Forge, job_id: int, state: State) -> None:
    async with asyncio.timeout(60):
        while (await forge.jobs.get(job_id)).state is not state:
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

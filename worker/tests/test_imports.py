"""What a program imports: a producer nothing that only workers and the command line need, and nothing that its system lacks."""

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "forge_jobs"

LIBRARIES = {
    "aiohttp",
    "asyncpg",
    "click",
    "croniter",
    "dateutil",
    "prometheus_client",
    "rich",
    "sqlite3",
    "typer",
    "uvloop",
}
OTHERS_ROOMS = {"builtin", "cli", "demo", "maintenance", "probes", "testing", "worker"}

OF_WORKERS = {
    *(f"forge_jobs.model.{name}" for name in ("cron", "flow", "permit", "version", "worker")),
    *(
        f"forge_jobs.telemetry.events.{name}"
        for name in ("chores", "database", "jobs", "program", "queues", "workers")
    ),
    "forge_jobs.rules.cron_times",
    "zoneinfo",
}
"""Files of many values, each a class that takes half a millisecond to make, which a program that only enqueues has no use for."""

PRODUCER = """
import asyncio, json, sys
from forge_jobs import Forge, Group, KeyLimit, Retry, Unique

forge = Forge("sqlite:///producer.sqlite")

@forge.handler(queue="mail", max_attempts=3)
async def send_email(to: str) -> None: ...

def imported():
    return sorted(sys.modules)

declared = imported()
"""

ENQUEUES = """
async def enqueue():
    async with forge:
        await send_email.enqueue(to="ada@example.com")

asyncio.run(enqueue())
print(json.dumps([declared, imported()]))
"""


def said(program: str, folder: Path) -> str:
    """Run the program in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_that_declares_and_enqueues_imports_what_it_uses_and_no_more(tmp_path: Path) -> None:
    declared, enqueued = (set(names) for names in json.loads(said(PRODUCER + ENQUEUES, tmp_path)))

    assert declared & LIBRARIES == set()
    assert enqueued & LIBRARIES == {"sqlite3"}, "a database brings its own driver"
    for imported in (declared, enqueued):
        rooms = {name.split(".")[1] for name in imported if name.startswith("forge_jobs.")}
        assert rooms & OTHERS_ROOMS == set()
    assert not any(name.startswith("forge_jobs.storage.interface.") for name in declared)
    assert declared & OF_WORKERS == set()
    assert (
        len([name for name in declared if name.startswith("forge_jobs")]) <= 110
    )  # each costs a third of a millisecond


def test_the_package_by_itself_imports_nothing(tmp_path: Path) -> None:
    names = said(
        "import sys, forge_jobs; print(*(name for name in sys.modules if 'forge' in name or name == 'asyncio'))",
        tmp_path,
    )

    assert {name for name in names.split() if not name.startswith("__editable__")} == {
        "forge_jobs",
        "forge_jobs.rooms",
        "forge_jobs.system",
        "forge_jobs.system.stop_signals",
    }


def test_a_worker_without_a_metrics_port_and_without_crons_imports_no_library_for_them(
    tmp_path: Path,
) -> None:
    program = (
        PRODUCER
        + """
from forge_jobs import Worker
asyncio.run(Worker(forge, queues=["mail"]).run(until_empty=True))
print(json.dumps(imported()))
"""
    )

    assert (
        set(json.loads(said(program, tmp_path))) & {"asyncpg", "croniter", "prometheus_client", "typer"}
        == set()
    )


def test_the_command_line_imports_no_library_that_few_commands_need(tmp_path: Path) -> None:
    names = said("import sys, forge_jobs.cli; print(*sys.modules)", tmp_path).split()

    assert set(names) & ((LIBRARIES - {"click", "sqlite3"}) | {"email", "importlib.metadata"}) == set()


@pytest.mark.parametrize("before", ["enable", "disable"])
def test_garbage_is_looked_for_after_the_import_of_the_command_line_if_it_was_before_and_not_in_what_stays(
    tmp_path: Path, before: str
) -> None:
    program = (
        f"import gc; gc.{before}(); import forge_jobs.cli; print(gc.isenabled(), gc.get_freeze_count() > 0)"
    )

    looked = before == "enable"
    assert said(program, tmp_path) == f"{looked} {looked}\n"


def rooms() -> Iterator[tuple[str, ast.Module]]:
    """Yield the packages that offer names which are imported when they are asked for, with their code."""
    for file in sorted(PACKAGE.rglob("__init__.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "offering" for node in ast.walk(tree)
        ):
            yield ".".join(("forge_jobs", *file.parent.relative_to(PACKAGE).parts)), tree


def test_what_a_room_offers_is_what_type_checkers_are_told() -> None:
    seen = []
    for room, tree in rooms():
        package = importlib.import_module(room)
        [told] = [node for node in tree.body if isinstance(node, ast.If)]
        names = {
            alias.name: node.module
            for node in told.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert names.keys() == set(package.__all__), room
        for name, module in names.items():
            offered = getattr(package, name)
            assert offered is getattr(importlib.import_module(str(module)), name), f"{room}.{name}"
        seen.append(room)

    assert {"forge_jobs", "forge_jobs.client", "forge_jobs.telemetry.events"} <= set(seen)


def test_what_a_room_does_not_offer_is_no_attribute_of_it() -> None:
    for room, _ in rooms():
        with pytest.raises(AttributeError, match=f"module '{room}' has no attribute 'Frobnicator'"):
            importlib.import_module(room).Frobnicator  # noqa: B018


WINDOWS = """
import asyncio, os, signal, sys

for name in ("fcntl", "grp", "pwd", "resource", "termios", "uvloop"):
    sys.modules[name] = None  # whoever imports it gets an ImportError
for name in ("fork", "getuid", "geteuid", "killpg", "register_at_fork"):
    delattr(os, name)
for name in ("SIGHUP", "SIGCHLD", "pthread_sigmask", "setitimer"):
    delattr(signal, name)
"""


def test_without_forks_and_posix_modules_a_program_enqueues_and_tests_its_handlers(tmp_path: Path) -> None:
    program = (
        WINDOWS
        + PRODUCER
        + ENQUEUES
        + """
from forge_jobs.testing import run_due_jobs, use_test_database

async def test():
    async with use_test_database(forge):
        await send_email.enqueue(to="ada@example.com")
        [job] = await run_due_jobs(forge)
        print(job.state.value)

asyncio.run(test())
"""
    )

    assert said(program, tmp_path).splitlines()[-1] == "done"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--help"], 0, ""),
        (["db", "migrate"], 0, ""),
        (
            ["worker", "shop:forge"],
            2,
            "A worker needs forks and signals, which this system lacks; allowed are Linux, macOS,",
        ),
        (
            ["demo", "--postgres"],
            2,
            "A PostgreSQL of one's own needs forks and signals, which this system lacks;",
        ),
    ],
)
def test_without_forks_the_command_line_starts_and_says_what_it_cannot_do(
    tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    program = f"{WINDOWS}\nfrom forge_jobs.cli import main\nsys.exit(main({arguments!r}))"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )

    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1 if sentence else 0), done.stderr
    assert done.stderr.startswith(sentence)

"""What the documents tell people to type works as it stands there."""

import configparser
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from forge_jobs.codecs import new_key
from forge_jobs.settings import database_file
from forge_jobs.settings.environment import KNOWN
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.pages import README, ROOT, blocks, commands

BIN = Path(sys.executable).parent
DEADLINE = 60  # seconds for one command; a safeguard, nothing is measured

# The tests run in an environment that has the first two already; the rest is run by tests/e2e.
NOT_RUN = ("pip ", "make ", "kind ", "docker ", "kubectl ", "helm ")


@dataclass
class Shell:
    """A folder with the README's programs in it, and what a reader would have on the path."""

    folder: Path
    workers: list["subprocess.Popen[str]"]

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("FORGE_", "JOBS_"))}
        return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}

    def run(self, command: str, **environment: str) -> str:
        """Run the command, a worker in the background; return what it printed."""
        arguments = shlex.split(command)
        if arguments[:2] == ["forge-jobs", "worker"]:
            self.workers.append(
                subprocess.Popen(
                    arguments, cwd=self.folder, env=self.environment, stderr=subprocess.PIPE, text=True
                )
            )
            return ""
        ended = subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
        return ended.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path, [])
    for block in blocks(README):
        if block.language == "python" and block.file_name:
            (tmp_path / block.file_name).write_text(block.text, encoding="utf-8")
    yield shell
    for worker in shell.workers:
        worker.kill()
        worker.communicate()


def test_every_command_of_the_readme_succeeds(shell: Shell) -> None:
    printed = {command: shell.run(command) for command in commands(README) if not command.startswith(NOT_RUN)}

    assert "sent 'Hello' to ada@example.com at attempt 1" in printed["python app.py"]
    assert "send_email" in printed["forge-jobs jobs list"]
    listed = json.loads(shell.run("forge-jobs jobs list --kind send_email --json"))
    bob, ada = [job for job in listed if job["payload"]["to"].split("@")[0] in ("bob", "ada")][:2]
    assert {bob["payload"]["to"], ada["payload"]["to"]} == {"bob@example.com", "ada@example.com"}
    assert [(job["max_attempts"], job["timeout_seconds"]) for job in (bob, ada)] == [(8, 30.0), (8, 30.0)]


def test_the_worker_of_the_readme_stops_when_told_to(shell: Shell) -> None:
    shell.run("forge-jobs worker app:forge --queues default")
    shell.run("python app.py")
    worker = shell.workers[0]

    worker.send_signal(signal.SIGTERM)

    _, said = worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 0, said


def test_every_make_target_of_the_readme_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    named = [command.split()[1] for command in commands(README) if command.startswith("make ")]

    assert named
    assert set(named) <= set(targets)


def test_the_readme_s_first_example_fits_on_a_screen() -> None:
    first = blocks(README)[0]

    assert first.file_name == "app.py"
    assert len(first.text.splitlines()) <= 25


@pytest.fixture
def logging_of_its_own() -> Iterator[None]:
    """What a page configures of logging holds in its test only."""
    loggers = (logging.getLogger(), logging.getLogger("forge_jobs"))
    before = [(each, list(each.handlers), each.level) for each in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.mark.parametrize("document", sorted(ROOT.glob("docs/*.md")), ids=lambda document: document.name)
@pytest.mark.usefixtures("logging_of_its_own")
def test_every_python_block_of_a_page_runs(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_DATABASE_URL", f"sqlite:///{tmp_path}/queue.sqlite")
    monkeypatch.chdir(tmp_path)  # where they leave files
    monkeypatch.setenv("SEALING_KEYS", f"2026-11:{new_key()}")
    for block in blocks(document):
        if block.language == "python" and not block.quoted:  # of a program that is run as a whole
            exec(compile(block.text, str(document), "exec"), {"__name__": document.stem})


@pytest.mark.parametrize(
    "document", [README, ROOT / "docs" / "configuration.md"], ids=lambda document: document.name
)
def test_the_configuration_files_in_the_documents_are_allowed(document: Path, tmp_path: Path) -> None:
    written = [block.text for block in blocks(document) if block.language == "toml"]
    file = tmp_path / "queue_database.toml"

    assert written
    for text in written:
        file.write_text(text, encoding="utf-8")
        database_file.load(file, {"SHOP_DB_PASSWORD": "secret"}, tmp_path / "queue.sqlite")


@pytest.mark.parametrize(
    "document", [README, ROOT / "docs" / "configuration.md"], ids=lambda document: document.name
)
def test_every_variable_is_documented_with_its_name(document: Path) -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", document.read_text(encoding="utf-8"), re.MULTILINE))

    assert named == {*KNOWN, "JOBS_CONFIG_DIR", "JOBS_DATA_DIR"} - {"FORGE_TEST_DATABASE_URL"}


@pytest.mark.parametrize(
    ("example", "last_line"),
    [
        ("nightly.py", "dead channel 'closed' is closed"),
        ("stretch.py", None),
        ("bookings.py", "order 1 is booked"),
    ],
    ids=["nightly.py", "stretch.py", "bookings.py"],
)
def test_an_example_runs(example: str, last_line: str | None, shell: Shell) -> None:
    printed = shell.run(f"python {ROOT / 'examples' / example}").splitlines()

    assert len(printed) == 3
    assert last_line in (None, *printed)


def test_the_example_with_a_batch_runs(shell: Shell) -> None:
    printed = shell.run(
        f"python {ROOT / 'examples' / 'pages.py'}", FORGE_DATABASE_URL="sqlite://:memory:"
    ).splitlines()

    assert printed == ["250 pages are indexed, 1 was refused", "at most 100 at a time"]


def test_the_example_with_a_transaction_runs(shell: Shell) -> None:
    with LocalPostgres() as server:
        printed = shell.run(
            f"python {ROOT / 'examples' / 'orders.py'}", FORGE_DATABASE_URL=server.url()
        ).splitlines()

    assert printed == ["a bike is not in stock", "order 1 is confirmed"]


def test_the_units_of_the_operating_page_give_more_time_than_the_grace() -> None:
    page = blocks(ROOT / "docs" / "operating.md")
    [unit] = [block.text for block in page if block.language == "ini"]
    [compose] = [yaml.safe_load(block.text) for block in page if block.language == "yaml"]
    service = configparser.ConfigParser()
    service.optionxform = str  # type: ignore[assignment]
    service.read_string(unit)
    worker = compose["services"]["worker"]

    started = shlex.split(service["Service"]["ExecStart"])
    assert started[1:] == worker["command"]
    grace = int(started[started.index("--grace") + 1])
    assert service["Service"]["KillMode"] == "mixed"
    assert int(service["Service"]["TimeoutStopSec"]) == int(worker["stop_grace_period"][:-1]) >= grace + 10


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    [unit] = [block.text for block in blocks(ROOT / "docs" / "operating.md") if block.language == "ini"]
    file = tmp_path / "shop-worker.service"
    here = {"/srv/shop/.venv/bin/forge-jobs": str(BIN / "forge-jobs"), "User=shop": "User=root"}
    for there, real in here.items():
        assert there in unit
        unit = unit.replace(there, real)
    file.write_text(unit)

    checked = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", str(file)], capture_output=True, text=True
    )

    assert (checked.returncode, file.name in checked.stderr) == (0, False), checked.stderr


COMPOSE = ["docker", "compose", "--file"]


@pytest.mark.skipif(
    shutil.which("docker") is None
    or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode != 0,
    reason="there is no docker compose",
)
def test_docker_compose_has_nothing_to_say_against_the_services(tmp_path: Path) -> None:
    [services] = [block.text for block in blocks(ROOT / "docs" / "operating.md") if block.language == "yaml"]
    file = tmp_path / "compose.yaml"
    file.write_text(services)

    checked = subprocess.run([*COMPOSE, str(file), "config", "--quiet"], capture_output=True, text=True)

    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_worker_of_a_unit_stops_when_its_group_is_told_to(shell: Shell) -> None:
    [unit] = [block.text for block in blocks(ROOT / "docs" / "operating.md") if block.language == "ini"]
    [command] = re.findall(r"^ExecStart=\S+/(forge-jobs .*)$", unit, re.MULTILINE)
    (shell.folder / "shop.py").write_text((shell.folder / "app.py").read_text())
    worker = subprocess.Popen(
        shlex.split(command),
        cwd=shell.folder,
        env=shell.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    shell.workers.append(worker)
    assert worker.stderr is not None
    while "serves" not in worker.stderr.readline():
        assert worker.poll() is None

    os.killpg(worker.pid, signal.SIGTERM)

    _, said = worker.communicate(timeout=DEADLINE)
    assert worker.returncode == 0, said

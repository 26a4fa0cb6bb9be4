"""The program that FORGE_APP names: all commands use its database and its handlers, and say what is wrong with it."""

import json
from pathlib import Path

import pytest

from tests.command_line import CommandLine, migrated

PROGRAM = """
from forge_jobs import Forge

forge = Forge({url!r})

@forge.handler(queue="mail", max_attempts=3)
async def send_email(to: str) -> None: ...
"""


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Return a command line whose FORGE_APP has a database that nothing else names."""
    command_line = migrated(tmp_path, capsys, monkeypatch)
    name = f"shop_{abs(hash(tmp_path))}"  # another one in each test: modules stay imported
    (tmp_path / f"{name}.py").write_text(PROGRAM.format(url=f"sqlite:///{tmp_path}/shop.sqlite"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FORGE_APP", f"{name}:forge")
    assert command_line("db", "migrate").code == 0
    return command_line


def test_all_commands_use_the_database_of_the_program(cli: CommandLine):
    id = cli.fine("enqueue", "send_email", '{"to": "ada@example.com"}')["id"]

    assert [job["id"] for job in cli.fine("jobs", "list")] == [id]
    assert "shop.sqlite" in cli("db", "status").out
    assert cli.fine("jobs", "list", "--database-url", cli.url) == []


def test_a_job_that_is_enqueued_has_what_its_handler_declares_and_fits_it(cli: CommandLine):
    id = cli.fine("enqueue", "send_email", '{"to": "ada@example.com"}')["id"]
    job = cli.fine("jobs", "show", str(id))

    assert (job["queue"], job["max_attempts"]) == ("mail", 3)
    assert "send_email is refused" in cli("enqueue", "send_email", '{"to": 3}').error


def test_a_command_that_looks_writes_nothing_that_the_program_declares(cli: CommandLine):
    assert [queue["name"] for queue in cli.fine("queues", "list")] == ["default"]
    assert cli.fine("kinds", "list") == []

    cli.fine("enqueue", "send_email", '{"to": "ada@example.com"}')

    assert [kind["kind"] for kind in cli.fine("kinds", "list")] == ["send_email"]


BROKEN = {
    "a library is missing": (
        "import os\nimport a_missing_library\n",
        "No module named 'a_missing_library'",
        ":2 in",
    ),
    "its syntax is wrong": ("forge = (\n", "SyntaxError", ":1: forge = ("),
    "it raises": ("import os\n\nforge = os.environ['NIX']\n", "KeyError: 'NIX'", ":3 in"),
    "it exits": ("import sys\nsys.exit('no licence')\n", "SystemExit: no licence", ":2 in"),
    "it declares a handler wrongly": (
        "from forge_jobs import Forge\nforge = Forge()\n@forge.handler(priority='high')\ndef f(): ...\n",
        "priority is 'high', allowed",
        ":3 in",
    ),
    "it asks for what is called otherwise": (
        "from forge_jobs import Forge\nforge = Forge()\n@forge.handler(max_retries=3)\ndef f(): ...\n",
        "max_attempts=4?",
        ":3 in",
    ),
}


@pytest.mark.parametrize("problem", BROKEN)
@pytest.mark.parametrize("arguments", [["worker", "--queues", "default"], ["jobs", "list"]], ids=" ".join)
def test_a_program_that_cannot_be_imported_is_three_lines(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, problem: str, arguments: list[str]
):
    code, said, where = BROKEN[problem]
    name = f"broken_{problem.replace(' ', '_')}"
    (cli.folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("FORGE_APP", f"{name}:forge")

    answer = cli(*arguments)

    first, second, third = answer.error.splitlines()
    assert answer.code == 2
    assert first.startswith(f"The program {name!r} cannot be imported: ") and said in first
    assert f"{name}.py{where}" in second
    assert first.endswith((said, ".")) and not first.endswith("?.")
    assert third == f"The whole traceback: python -c 'import {name}'"
    assert json.loads(cli(*arguments, "--json").error)["error"] == answer.error.strip()

"""Each block of each page is run, or is a part of a file that is run, or says that it is another system's."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import asyncpg
import pytest

from forge_jobs import Context, Dead, Flow, Forge, Worker
from forge_jobs.testing import run_due_jobs, use_test_database
from tests.command_line import CommandLine, migrated
from tests.pages import PAGES, README, ROOT, Block, blocks, commands
from tests.storage.conftest import postgres  # noqa: F401  a fixture
from tests.storage.databases import Database

RUN_HERE = {"python", "sh", "sql"}
OTHERS_CODE = "py"  # what Celery and others have, beside ours, which is `python`
PROSE = "text"  # what is printed or drawn

RUN_BY = {
    ("README.md", "toml"): "test_the_configuration_files_in_the_documents_are_allowed",
    ("docs/batches.md", "json"): "test_the_note_of_the_page_about_batches_is_what_a_batch_leaves",
    ("docs/built-in-kinds.md", "dockerfile"): "test_an_image_of_ones_own_runs_ones_own_handlers",
    ("docs/configuration.md", "toml"): "test_the_configuration_files_in_the_documents_are_allowed",
    ("docs/cron.md", "crontab"): "test_every_command_of_a_page_is_accepted",
    ("docs/kubernetes.md", "yaml"): "test_the_objects_of_the_page_are_allowed",
    ("docs/kubernetes-argo-cd.md", "yaml"): "test_argo_cd_shows_how_a_queue_is",
    (
        "docs/kubernetes-nodes.md",
        "yaml",
    ): "test_what_the_page_says_of_disruptions_may_be_said_and_its_marks_are_those_that_are_written",
    (
        "docs/kubernetes-scaling.md",
        "yaml",
    ): "test_the_adapters_rule_gives_the_workload_once_whoever_else_tells_of_the_queue",
    ("docs/metrics.md", "promql"): "test_every_metric_that_a_question_of_the_document_uses_exists",
    ("docs/metrics.md", "yaml"): "test_what_the_page_tells_prometheus_to_ask_is_what_four_processes_serve",
    ("docs/operating.md", "ini"): "test_systemd_has_nothing_to_say_against_the_unit",
    ("docs/operating.md", "yaml"): "test_docker_compose_has_nothing_to_say_against_the_services",
    ("docs/testing.md", "ini"): "test_the_tests_of_the_page_about_tests_run_with_its_settings",
}
"""What runs the blocks of a page that are neither Python, nor commands, nor SQL."""

ELSEWHERE = {
    "alias": "a shell's own",
    "docker": "tests/images and tests/e2e",
    "helm": "tests/e2e",
    "kind": "tests/e2e",
    "kubectl": "tests/e2e, and operator/tests/test_kubernetes_pages.py",
}
"""Programs that no test here has, and what runs them."""

RUN_WITH_POSTGRES = {
    "import": "test_a_program_that_is_killed_again_and_again_takes_each_job_over_once",
    "move": "test_the_commands_of_the_page_succeed",
}
"""Commands that need another database, and what runs them."""

TOLD = [page for page in PAGES if commands(page)]


def of_all(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, *languages)]


def sources() -> dict[str, str]:
    """Return the text of every file of tests, by its path."""
    return {
        str(file): file.read_text(encoding="utf-8")
        for folder in ("worker/tests", "operator/tests", "tests")
        for file in (ROOT / folder).rglob("*.py")
    }


def test_each_block_of_each_page_is_run_or_says_why_not() -> None:
    known = re.findall(r"def (test_\w+)", "\n".join(sources().values()))
    wrong = []
    for block in of_all():
        page = str(block.page.relative_to(ROOT))
        if block.language == OTHERS_CODE:
            is_covered = page.startswith("docs/coming-from-") and "forge_jobs" not in block.text
        elif block.language == "python" and block.page.parent != ROOT / "docs":
            is_covered = bool(block.quoted or block.file_name)  # which the commands of README run
        elif block.language in (*RUN_HERE, PROSE):
            is_covered = True
        else:
            is_covered = RUN_BY.get((page, block.language)) in known
        if not is_covered:
            wrong.append(f"{block.place}: {block.language!r}")

    assert wrong == []
    there = {(str(block.page.relative_to(ROOT)), block.language) for block in of_all()}
    assert RUN_BY.keys() - there == set()


LIKE_A_FENCE = re.compile(r"[\s>*+-]*(?:`{3,}|~{3,})[^`]*$")
LIKE_A_COMMAND = re.compile(
    r"\s*(?:[$>%] |>>> |(?:forge-jobs|make|pip|python|docker|helm|kubectl|import|from|SELECT) )"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_is_written_in_a_way_in_which_the_tests_do_not_see_it(page: Path) -> None:
    """A fence is three backticks at the beginning of a line, and what is behind them is a language; nothing else makes a block."""
    unseen: list[str] = []
    fences, before = 0, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        if LIKE_A_FENCE.match(line):
            fences += 1
            is_seen = re.fullmatch(r" *```[a-z]*", line) is not None
        else:
            is_seen = fences % 2 == 1 or bool(before.strip()) or re.match(r" {4}|\t", line) is None
        if not is_seen:
            unseen.append(f"{page.relative_to(ROOT)}:{number}")
        before = line

    assert unseen == []
    assert fences == 2 * len(blocks(page))


def test_what_is_printed_or_drawn_is_nothing_to_be_typed() -> None:
    told = [
        block.place
        for block in of_all(PROSE)
        if any(LIKE_A_COMMAND.match(line) for line in block.text.splitlines())
    ]

    assert told == []


def test_a_program_that_is_told_to_be_run_is_one_that_a_test_runs() -> None:
    by_readme = {str(block.file_name) for block in blocks(README, "python") if block.file_name}
    by_page: dict[Path, set[str]] = {README: by_readme, ROOT / "docs" / "django.md": {"manage.py"}}
    told = [
        (page, shlex.split(command)[1])
        for page in TOLD
        for command in commands(page)
        if command[:7] == "python "
    ]

    assert len(told) > 4
    for page, file in told:
        is_example = file.startswith("examples/") and (ROOT / file).is_file()
        assert is_example or file in by_page.get(page, set()), file
    typed = "\n".join(commands(README))
    assert [name for name in by_readme if not re.search(rf"\b{name.removesuffix('.py')}\b", typed)] == []


def test_names_in_blocks_are_known_also_where_no_test_calls_what_has_them(tmp_path: Path) -> None:
    for block in of_all("python"):
        if not block.quoted:
            file = tmp_path / f"{block.page.stem}-{block.line}.py"
            file.write_text(block.text, encoding="utf-8")
    rules = ["--isolated", "--no-cache", "--select", "F821,F822,F823", "--output-format", "concise"]
    checked = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *rules, str(tmp_path)], capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout


def test_a_block_that_quotes_a_file_is_a_part_of_it() -> None:
    quoted = [block for block in of_all() if block.quoted]

    assert len(quoted) > 8
    assert [
        block.place
        for block in quoted
        if f"\n{block.text}" not in "\n" + (ROOT / str(block.quoted)).read_text(encoding="utf-8")
    ] == []


def test_what_is_quoted_and_every_example_is_run() -> None:
    examples = [path for path in (ROOT / "examples").iterdir() if path.suffix == ".py" or is_project(path)]
    ours = "\n".join(sources().values())

    assert [path.name for path in examples if not re.search(rf"\b{path.stem}\b", ours)] == []
    run = [*examples, ROOT / "worker" / "forge_jobs"]
    for block in of_all():
        if block.quoted:
            assert any((ROOT / block.quoted).is_relative_to(path) for path in run), block.place


def is_project(path: Path) -> bool:
    return (path / "manage.py").exists()


def test_what_is_installed_and_made_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    installed = [
        shlex.split(command)[2:] for page in TOLD for command in commands(page) if command[:4] == "pip "
    ]
    inline = [
        shlex.split(command)[2:]
        for page in PAGES
        for command in re.findall(r"`(pip install [^`]*forge-jobs[^`]*)`", page.read_text(encoding="utf-8"))
    ]

    for command in [command for page in TOLD for command in commands(page) if command[:5] == "make "]:
        assert command.split()[1] in targets
    assert len(installed) > 2
    for name in [word for words in installed + inline for word in words if word.startswith("forge-jobs")]:
        match = re.fullmatch(r"forge-jobs(?:\[([\w,]+)\])?", name)
        assert match, name
        assert set((match[1] or "http").split(",")) <= project["optional-dependencies"].keys()


def test_a_program_that_is_told_to_be_typed_is_run_here_or_elsewhere() -> None:
    here = ("forge-jobs", "make", "pip", "python")

    told = {shlex.split(command)[0] for page in TOLD for command in commands(page)}

    assert told - {*here} == ELSEWHERE.keys()


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    return migrated(tmp_path, capsys, monkeypatch)


async def _scene(forge: Forge, *, ended: bool) -> None:
    """What the pages speak of is there: job 42 in steps, flow 7 that is dead, operations 7 and 8, and a queue that has an owner."""

    @forge.handler(kind="fail")
    async def fail() -> None:
        raise Dead("nobody is at home")

    @forge.handler(kind="fulfil")
    async def fulfil(ctx: Context, to: str = "") -> str:
        return await ctx.step("reserve", _reserve)

    await forge.queues.ensure("mail", "bulk")
    await forge.queues.set("orders", managed_by="ForgeQueue shop/mail")
    for _ in range(7):
        await Flow("sends").and_then(fail).start()
    await Worker(forge, queues=["default"]).run(until_empty=True)
    for number in range(8, 43):
        job = await forge.enqueue("fulfil" if number == 42 else "fill", queue="mail")
    assert job.id == 42
    if ended:
        await Worker(forge, queues=["mail"]).run(until_empty=True)
    for _ in range(8):
        await forge.operations.start("cancelled", kind="nothing")


async def _reserve() -> str:
    return "parcel"


@pytest.mark.parametrize("page", [page for page in TOLD if page != README], ids=lambda page: page.name)
def test_every_command_of_a_page_is_accepted(page: Path, cli: CommandLine) -> None:
    cli.using(partial(_scene, ended=page.name != "signals.md"))  # a signal goes to a job that waits for it
    for block in blocks(page):
        if block.file_name:
            (cli.folder / block.file_name).write_text(block.text, encoding="utf-8")
    (cli.folder / "shop.py").write_text(blocks(README)[0].text, encoding="utf-8")
    refused = {}
    for command in commands(page):
        program, *arguments = shlex.split(command)
        if program != "forge-jobs" or arguments[0] in RUN_WITH_POSTGRES:
            continue
        if arguments[0] == "worker":
            worker = cli.process(*arguments, "--until-empty")
            _, said = worker.communicate(timeout=60)
            refused[command] = said if worker.returncode else None
        else:
            answer = cli(*arguments)
            refused[command] = answer.error if answer.code else None

    assert {command: said for command, said in refused.items() if said} == {}


def test_commands_that_need_another_database_are_run_by_tests_of_their_own(cli: CommandLine) -> None:
    known = re.findall(r"def (test_\w+)", "\n".join(sources().values()))
    told = [
        shlex.split(command)[1:]
        for page in TOLD
        for command in commands(page)
        if command[:10] == "forge-jobs"
    ]

    for name, run_by in RUN_WITH_POSTGRES.items():
        assert run_by in known
        for arguments in [arguments for arguments in told if arguments[0] == name]:
            assert "--help" not in arguments
            assert cli(*arguments, "--help").code == 0


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sql")], ids=lambda page: page.name)
async def test_every_statement_of_a_page_runs(page: Path, postgres: Database) -> None:  # noqa: F811
    connection = await asyncpg.connect(postgres.url)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("CREATE ROLE shop_web; CREATE ROLE keda")
        await connection.execute("SELECT setval('forge_jobs.job_id_seq', 41)")
        if page.name == "signals.md":
            await connection.execute("SELECT forge_jobs.enqueue('refund')")  # job 42
        for block in blocks(page, "sql"):
            await connection.execute(block.text)
    finally:
        await transaction.rollback()
        await connection.close()


async def test_the_note_of_the_page_about_batches_is_what_a_batch_leaves() -> None:
    [block] = blocks(ROOT / "docs" / "batches.md", "json")
    mails = [{"to": f"{name}@example.com", "subject": "Hi"} for name in ("ann", "bob", "cyd")]
    forge = Forge("sqlite://:memory:")

    @forge.batch_handler
    async def notify(mails: list[dict[str, str]]) -> list[object]:
        return ["sent to ann@example.com", OSError("no route"), None]

    async with use_test_database(forge):
        await forge.enqueue("notify", mails)
        [job] = await run_due_jobs(forge)

    assert json.loads(job.payload) == json.loads(block.text)


def test_the_tests_of_the_page_about_tests_run_with_its_settings(tmp_path: Path) -> None:
    page = ROOT / "docs" / "testing.md"
    [settings] = blocks(page, "ini")
    [with_fixtures] = [block for block in blocks(page, "python") if "(forge: Forge" in block.text]
    (tmp_path / "pytest.ini").write_text(settings.text, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(with_fixtures.text, encoding="utf-8")
    (tmp_path / "shop.py").write_text("from test_shop import app as forge\n", encoding="utf-8")

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not on PATH (apt package prometheus)"
)
def test_what_the_page_tells_prometheus_to_ask_is_what_four_processes_serve(tmp_path: Path) -> None:
    [block] = blocks(ROOT / "docs" / "metrics.md", "yaml")
    file = tmp_path / "prometheus.yml"
    file.write_text(block.text, encoding="utf-8")

    checked = subprocess.run(["promtool", "check", "config", str(file)], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr
    assert re.findall(r":(\d+)", block.text) == [
        "9100",
        "9101",
        "9102",
        "9103",
    ]  # --metrics-port and the next ones

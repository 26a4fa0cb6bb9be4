"""What holds for the project as a whole: who imports whom, and which names are public."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest

from forge_jobs.model.epoch import LeaderEpoch, OperatorEpoch
from forge_jobs.storage.interface import storage as interface
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.migrate import migrations
from tests.releases.keep import made

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "worker" / "forge_jobs"
PACKAGES = (PACKAGE, ROOT / "operator" / "forge_operator")
MIGRATIONS = PACKAGE / "storage" / "migrations"
KEPT = sorted(ROOT.glob("worker/tests/releases/*/*.sql"))


def test_modules_import_downwards_only() -> None:
    kept = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(no_cache=True))",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert kept.returncode == 0, kept.stdout + kept.stderr


def test_every_public_name_exists() -> None:
    forge_jobs = importlib.import_module("forge_jobs")

    assert {"Forge", "Worker", "Context", "Dead", "Retry"} <= set(forge_jobs.__all__)
    assert [name for name in forge_jobs.__all__ if not hasattr(forge_jobs, name)] == []


def test_signals_are_heard_before_the_rest_of_the_package_is_imported() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    first = next(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))

    assert ast.unparse(first) == "from forge_jobs.system import stop_signals as stop_signals"


EPOCHS = """
from forge_jobs.model.epoch import LeaderEpoch, OperatorEpoch
from forge_jobs.storage.interface.storage import Storage

async def write(storage: Storage, leads: LeaderEpoch, operates: OperatorEpoch, number: int) -> None:
    await storage.queues.ensure(["mail"], epoch=operates)
    await storage.history.sweep(epoch=leads)
    await storage.queues.ensure(["mail"], epoch=leads)
    await storage.history.sweep(epoch=operates)
    await storage.history.sweep(epoch=number)
"""


def test_mypy_refuses_the_epoch_of_an_operator_for_that_of_a_leader(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(EPOCHS, encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert re.findall(
        r'program.py:(\d+): error: .* has incompatible type "(\w+)"; expected "([^"]+)"', checked.stdout
    ) == [
        ("8", "LeaderEpoch", "OperatorEpoch | None"),
        ("9", "OperatorEpoch", "LeaderEpoch"),
        ("10", "int", "LeaderEpoch"),
    ], checked.stdout + checked.stderr


def test_every_method_of_a_storage_says_whose_epoch_it_takes() -> None:
    taken = {
        f"{noun}.{name}": parameters["epoch"]
        for noun, protocol in get_type_hints(Storage, vars(interface)).items()
        if inspect.isclass(protocol)
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if "epoch" in (parameters := get_type_hints(method, vars(sys.modules[method.__module__])))
    }

    assert {"queues.set", "versions.promote", "fires.fire", "claims.lost"} <= taken.keys()
    whose = {OperatorEpoch, OperatorEpoch | None, LeaderEpoch}
    assert {name: epoch for name, epoch in taken.items() if epoch not in whose} == {}


def test_both_databases_have_the_same_migrations() -> None:
    postgres, sqlite = (
        sorted(path.name for path in (MIGRATIONS / name).glob("*.sql")) for name in ("postgres", "sqlite")
    )

    assert postgres
    assert postgres == sqlite


def test_migrations_are_numbered_without_a_gap() -> None:
    names = sorted(path.name for path in (MIGRATIONS / "postgres").glob("*"))

    assert [name[:5] for name in names] == [f"{number:04}_" for number in range(1, len(names) + 1)]


@pytest.mark.parametrize("kept", KEPT, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_migration_is_never_edited_after_a_release(kept: Path) -> None:
    """While the release of `pyproject.toml` is not out yet, `make keep-release` keeps what was edited."""
    text = kept.read_text(encoding="utf-8")
    released = [step for step in migrations(kept.stem) if f"-- Migration {step.number}\n" in text]

    assert released
    assert [step.name for step in released if made(kept.stem, step) not in text] == []


def test_both_databases_have_a_file_for_the_same_nouns() -> None:
    postgres, sqlite = (
        {path.name for path in (PACKAGE / "storage" / name).glob("*.py")} for name in ("postgres", "sqlite")
    )

    assert {"claims.py", "jobs.py", "queues.py"} <= postgres & sqlite


def test_the_operator_folder_and_the_test_folders_are_no_packages() -> None:
    folders = [ROOT / "operator", *ROOT.glob("*/tests"), *ROOT.glob("*/tests/**/"), ROOT / "tests"]

    assert [folder for folder in folders if (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    "file",
    [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda file: file.name,
)
def test_links_in_the_documents_lead_somewhere(file: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text(encoding="utf-8"))

    assert [link for link in links if not (file.parent / link).exists()] == []


def test_what_is_shipped_includes_the_migrations_the_types_and_the_templates() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert settings["tool"]["setuptools"]["package-data"]["forge_jobs"] == [
        "py.typed",
        "storage/migrations/*/*.sql",
        "integrations/django/templates/admin/**/*.html",
    ]


FACADES = {
    "Crons",
    "Flows",
    "Groups",
    "Interventions",
    "Jobs",
    "Kinds",
    "Limits",
    "Operations",
    "Owners",
    "Queues",
    "Tenants",
    "Versions",
    "Workers",
}
"""What a program calls and what a database does have the same nouns."""


OF_DJANGO = ("django/management/commands", "django/migrations", "django/models.py")
"""Where Django has names of its own: each command is a Command, and a model is what it is called in the admin."""


def test_a_class_has_a_name_of_its_own() -> None:
    """Those that begin with an underscore are nobody else's."""
    places = defaultdict(set)
    for package in PACKAGES:
        for file in package.rglob("*.py"):
            for name in re.findall(r"^class ([A-Z]\w*)", file.read_text(encoding="utf-8"), re.MULTILINE):
                if not any(place in str(file) for place in OF_DJANGO):
                    places[name].add(str(file.relative_to(ROOT)))

    assert {name: files for name, files in places.items() if len(files) > 1 and name not in FACADES} == {}


FORBIDDEN = {
    r"str(ike|uck)[ _-]?off|struckoff": "lost",
    r"\breaped\b|jobs?reaped": "taken back",
    r"(?<!, )\b(dead|stale|gone|vanished) workers?\b|\bdead worker's": "lost",
    r"(?<!handler )\bworkers?( that)? (is|are|was|were) given up|workergivenup": "lost, or cut off",
    r"\bversions?( that)? (is|are|was|were) given up|versions\.given_up": "failed",
    r"\bretiring\b|told to retire|retireworkers|versions\.retire\b": "cordoned",
    r"limits?[ .]drain\b|rate_limit\.drain|drain\w* (the|a) (bucket|rate limit)|limitdrained": "empty",
    r"\bdrain of [\d{]|drains `?jobs|jobs drained|drain(s|ed|ing)? (the|a) queue|forge\.drain": "work off, throughput",
    r"promot\w* (due|scheduled) jobs|promoter|jobspromoted|jobs_promoted|schedule\.promote": "make pending",
    r"outcome\.released|claims\.release|\breleased? (the |a )?jobs?\b": "hand back",
    r"owners?[ .]release|\breleas(e|es|ed|ing) (an?|the|its|everything|all) ?(owners?|queues?|crons?|rows?|that)": "dismiss",
    r"versions?[ .]verdict|verdict of (a|the) version|conditionverdict": "failure message, assessment",
    r"\bclaims_?lost\b|forget[-_ ]lost": "outcomes dropped, in no state",
    r"\b(present|one|only) owner of (a|the) job|workers? owns? (a|the|its) jobs?\b": "claim",
    r"another session (has|had|keeps)": "another transaction",
    r"promoted standby|promot\w* (a|the) (standby|replica)": "take over",
}
"""What stands for a word of docs/words.md, and that word. Letters may be large or small."""

SPOKEN = [
    *(file for package in PACKAGES for file in package.rglob("*") if file.suffix in (".py", ".sql")),
    *(
        file
        for folder in ("docs", "crds", "charts", "examples", "benchmarks")
        for file in (ROOT / folder).rglob("*")
    ),
    *ROOT.glob("*.md"),
]


@cache
def spoken() -> dict[str, str]:
    """Return the texts, in one line each, by their files."""
    files = [file for file in SPOKEN if file.suffix in (".py", ".sql", ".md", ".yaml", ".json", ".txt")]
    return {str(file.relative_to(ROOT)): " ".join(file.read_text(encoding="utf-8").split()) for file in files}


@pytest.mark.parametrize(("pattern", "word"), FORBIDDEN.items(), ids=FORBIDDEN.values())
def test_one_thing_has_one_word(pattern: str, word: str) -> None:
    found = {
        file: match[0]
        for file, text in spoken().items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    }

    assert found == {}, f"the word is: {word}"


def test_the_words_of_the_readme_mean_what_the_glossary_says() -> None:
    row = re.compile(r"^\| ([a-z][a-z -]+) \| (.+) \|$", re.MULTILINE)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme[readme.index("## The words") : readme.index("## The states")]
    glossary = row.findall((ROOT / "docs" / "words.md").read_text(encoding="utf-8"))

    assert set(row.findall(section)) - set(glossary) == set()
    assert len(glossary) == len(dict(glossary)), "a word stands there twice"

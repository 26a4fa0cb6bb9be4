"""What holds for each file of both packages: its name, its size, and what it may hold."""

import ast
import importlib
import inspect
import re
import statistics
import sys
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import grimp
import pytest

import forge_jobs
from forge_jobs import errors
from forge_jobs.client import Crons, Jobs, Kinds, Limits, Operations, Owners, Queues, Versions, Workers

ROOT = Path(__file__).parents[2]
PACKAGES = (ROOT / "worker" / "forge_jobs", ROOT / "operator" / "forge_operator")


@cache
def trees() -> dict[str, ast.Module]:
    """Return every file of both packages; parsed by the first test that asks, and not by all who collect the tests."""
    return {
        str(file.relative_to(package.parent)): ast.parse(file.read_text(encoding="utf-8"))
        for package in PACKAGES
        for file in sorted(package.rglob("*.py"))
    }


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function and method, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def imported(tree: ast.Module) -> set[str]:
    """Return the packages that a file imports, by the first part of their names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_both_packages_are_looked_at() -> None:
    assert {
        "forge_jobs/forge.py",
        "forge_jobs/storage/sqlite/claims.py",
        "forge_operator/program.py",
    } <= trees().keys()


def test_a_file_is_named_after_what_is_in_it() -> None:
    says_nothing = re.compile(
        r"(base|common|core|helpers?|lib|misc|shared|stuff|tools?|utils?|utilities)\.py"
    )

    assert [path for path in trees() if says_nothing.fullmatch(path.rpartition("/")[2])] == []


def lengths(package: Path) -> dict[str, int]:
    """Return the number of lines of each file of a package."""
    return {
        path: len((package.parent / path).read_text(encoding="utf-8").splitlines())
        for path in trees()
        if path.startswith(f"{package.name}/")
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_no_file_is_longer_than_450_lines(package: Path) -> None:
    assert {path: number for path, number in lengths(package).items() if number > 450} == {}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_half_of_the_files_have_at_most_110_lines(package: Path) -> None:
    assert statistics.median(lengths(package).values()) <= 110


LONG = {
    "forge_jobs/worker/runners.py": "_perform",  # each call that it made would cost every job
    "forge_operator/metrics/operator.py": "__init__",  # a list of metrics
}


def test_no_function_does_more_than_60_lines() -> None:
    """The signature and the docstring apart: a command has a line or more for each option."""
    long = {}
    for path, tree in trees().items():
        for function in functions(tree):
            body = function.body[1:] if ast.get_docstring(function) else function.body
            if body and (body[-1].end_lineno or 0) - body[0].lineno + 1 > 60:
                long[path] = function.name

    assert long == LONG


BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def depth(node: ast.AST, above: int = 0) -> int:
    """Return how many blocks lie in each other; those of an elif chain lie side by side."""
    deepest = above
    for child in ast.iter_child_nodes(node):
        is_elif = isinstance(child, ast.If) and isinstance(node, ast.If) and node.orelse == [child]
        deepest = max(deepest, depth(child, above + (isinstance(child, BLOCKS) and not is_elif)))
    return deepest


def test_no_function_nests_more_than_five_blocks() -> None:
    deep = {
        f"{path}: {function.name}"
        for path, tree in trees().items()
        for function in functions(tree)
        if depth(function) > 5
    }

    assert deep == set()


def public(tree: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield public classes, functions and methods with their names."""
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if not any(ast.unparse(decorator) in ("overload", "override") for decorator in node.decorator_list):
            yield within + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public(node, f"{node.name}.")


DOCUMENTED_ABOVE = {
    "forge_jobs/storage/": "storage/interface/ says what each method of a database does",
    "forge_jobs/telemetry/log": "the methods of the standard library's logging",
}


def test_every_public_name_has_a_docstring() -> None:
    undocumented = {
        f"{path}: {name}"
        for path, tree in trees().items()
        for name, node in public(tree)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
        and not ("." in name and path.startswith(tuple(DOCUMENTED_ABOVE)))
    }

    assert undocumented == set()
    assert [path for path, tree in trees().items() if not ast.get_docstring(tree)] == []
    assert [
        f"{path}: {name}"
        for path, tree in trees().items()
        if path.startswith("forge_jobs/storage/interface/")
        for name, node in public(tree)
        if not ast.get_docstring(node)  # type: ignore[arg-type]
    ] == []


STATEMENT = re.compile(
    r"\s*(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|WITH\s.+\sAS\s*\()\s", re.DOTALL
)


def test_only_the_storage_holds_sql_and_imports_drivers() -> None:
    outside = {path: tree for path, tree in trees().items() if not path.startswith("forge_jobs/storage/")}
    statements = {
        path
        for path, tree in outside.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and STATEMENT.match(node.value)
    }

    assert statements == set()
    assert {path for path, tree in outside.items() if imported(tree) & {"asyncpg", "sqlite3"}} == set()


ACTING = {
    "asyncio",
    "asyncpg",
    "kubernetes",
    "logging",
    "os",
    "select",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
}
PURE = (
    "forge_jobs/model/",
    "forge_jobs/rules/",
    "forge_operator/plan/",
    "forge_operator/state/",
    "forge_operator/specs/",
)


def test_values_and_rules_import_nothing_that_acts() -> None:
    acts = {
        path: imported(tree) & ACTING
        for path, tree in trees().items()
        if path.startswith(PURE) and imported(tree) & ACTING
    }

    assert acts == {
        "forge_jobs/rules/returned.py": {"asyncio"},  # what a handler returned may have to be awaited
        "forge_jobs/rules/verdict.py": {"asyncio"},  # the name of an exception
    }


LOGS = {
    "forge_jobs": ("forge_jobs/telemetry/log", "forge_jobs/builtin/output.py"),
    "forge_operator": (
        "forge_operator/loop/",
        "forge_operator/cluster/informer.py",  # keeps kopf quiet
        "forge_operator/database/link.py",
        "forge_operator/program.py",
    ),
}


def test_logic_emits_events_and_holds_no_log_text() -> None:
    allowed = tuple(place for places in LOGS.values() for place in places)
    logging = {path for path, tree in trees().items() if "logging" in imported(tree)}

    assert {path for path in logging if not path.startswith(allowed)} == set()


def test_no_file_imports_another_in_a_circle() -> None:
    graph = grimp.build_graph(
        *(package.name for package in PACKAGES), exclude_type_checking_imports=True, cache_dir=None
    )
    below = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    while leaves := {name for name, imports in below.items() if not imports & below.keys()}:
        below = {name: imports for name, imports in below.items() if name not in leaves}

    assert below == {}


def test_each_noun_of_the_storage_has_a_file_for_each_database() -> None:
    interface, postgres, sqlite = (
        {path.rpartition("/")[2] for path in trees() if path.startswith(f"forge_jobs/storage/{folder}/")}
        for folder in ("interface", "postgres", "sqlite")
    )

    assert interface - {"storage.py"} <= postgres & sqlite


def test_every_action_that_is_declared_can_be_planned() -> None:
    actions = importlib.import_module("forge_operator.plan.actions")
    declared = {
        name
        for name, node in public(trees()["forge_operator/plan/actions.py"])
        if isinstance(node, ast.ClassDef)
    }

    assert declared == {action.__name__ for action in typing.get_args(actions.Action)}


def test_every_error_can_be_imported_from_the_package() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.ForgeError)
    }

    assert raised - set(forge_jobs.__all__) == {"WorkerLost"}, "a worker that is lost is told by its session"


ROOMS = ("", ".client", ".handlers", ".model", ".settings", ".storage", ".sync", ".telemetry")
FACADES = (Crons, Jobs, Kinds, Limits, Operations, Owners, Queues, Versions, Workers)


def named(annotation: Any) -> Iterator[type]:
    """Yield the classes that an annotation names."""
    if isinstance(annotation, list | tuple):
        for part in annotation:
            yield from named(part)
    elif arguments := typing.get_args(annotation):
        yield from named((typing.get_origin(annotation), *arguments))
    elif inspect.isclass(annotation):
        yield annotation


def calls(owner: type) -> Iterator[Any]:
    """Yield the public methods and properties of a class."""
    for name, member in vars(owner).items():
        call = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if not name.startswith("_") and inspect.isfunction(call):
            yield call


def test_whatever_public_calls_take_and_return_can_be_imported_from_a_room() -> None:
    rooms = [importlib.import_module(f"forge_jobs{room}") for room in ROOMS]
    names = {name: getattr(room, name) for room in rooms for name in room.__all__}
    offered = {offer for offer in names.values() if inspect.isclass(offer)}
    public_classes = {getattr(forge_jobs, name) for name in forge_jobs.__all__} | {*FACADES}
    hidden = {
        f"{call.__qualname__}: {kind.__name__}"
        for owner in public_classes
        if inspect.isclass(owner)
        for call in calls(owner)
        for annotation in typing.get_type_hints(
            call, vars(sys.modules[call.__module__]), names | {"Forge": forge_jobs.Forge}
        ).values()
        for kind in named(annotation)
        if kind.__module__.startswith("forge_jobs") and kind not in offered
    }

    assert {"Forge.jobs", "Context.rate_limit"} <= {
        call.__qualname__ for owner in public_classes if inspect.isclass(owner) for call in calls(owner)
    }
    assert hidden == set()


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_that_a_room_offers_exists(room: str) -> None:
    module = importlib.import_module(f"forge_jobs{room}")

    assert [name for name in module.__all__ if not hasattr(module, name)] == []


OURS = ("benchmarks", "docs", "examples", "operator", "tests", "worker")
"""The folders that are read; beside them stands what is installed, which is much more."""


def test_a_file_that_is_spoken_of_exists() -> None:
    there = {
        file.relative_to(ROOT).as_posix()
        for folder in OURS
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".md", ".sql")
    }
    spoken = {
        (path, name)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | Function)
        for name in re.findall(r"`((?:\w+/)*\w+\.py)`", ast.get_docstring(node) or "")
    }
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    spoken |= {("CONTRIBUTING.md", name) for name in re.findall(r"`((?:\w+/)*\w+\.py)`", guide)}

    assert {
        (path, name) for path, name in spoken if not any(f"/{file}".endswith(f"/{name}") for file in there)
    } == set()


def test_tests_are_functions() -> None:
    classes = {
        f"{file.relative_to(ROOT)}: {name}"
        for folder in ("worker/tests", "operator/tests", "tests")
        for file in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"^class (Test\w*)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert classes == set()

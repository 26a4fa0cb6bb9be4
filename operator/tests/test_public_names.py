"""The operator uses what forge_jobs shows to everybody, and kopf in one place."""

import ast
from collections.abc import Iterator
from pathlib import Path

import forge_jobs

SOURCES = sorted((Path(__file__).parents[1] / "forge_operator").rglob("*.py"))

ROOMS = ("forge_jobs.model", "forge_jobs.errors")
"""Modules that hold nothing but what the public calls give and take."""

PARTS = {
    "forge_jobs.settings.database_file": {"CONNECTIONS", "LEAST_CONNECTIONS", "MOST_CONNECTIONS"},
    "forge_jobs.probes.server": {"HealthServer"},
    "forge_jobs.telemetry.log_format": {"JsonFormatter", "TextFormatter"},
    "forge_jobs.telemetry.events": {"DatabaseMoved", "Event"},
    "forge_jobs.settings.url_file": {"VARIABLE", "read"},
}
"""What stands by itself and is of use to any program."""


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of everything that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def is_public(module: str, name: str) -> bool:
    if module == "forge_jobs":
        return name in forge_jobs.__all__
    return module.startswith(ROOMS) or name in PARTS.get(module, ())


def test_only_public_names_of_the_library_are_used() -> None:
    found = {
        (file.name, module, name)
        for file in SOURCES
        for module, name in imports(file)
        if module.partition(".")[0] == "forge_jobs"
    }

    assert found
    assert [each for each in sorted(found) if not is_public(*each[1:])] == []


def test_kopf_and_the_clients_of_kubernetes_are_each_in_one_module() -> None:
    used = {
        (module.partition(".")[0], file.name)
        for file in SOURCES
        for module, _ in imports(file)
        if module.partition(".")[0] in ("kopf", "kubernetes", "aiohttp")
    }

    assert used == {("kopf", "informer.py"), ("kubernetes", "api.py"), ("aiohttp", "api.py")}

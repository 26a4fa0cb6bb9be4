"""The operator uses what forge_jobs shows to everybody, and kopf in one place."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import forge_jobs.errors

SOURCES = sorted((Path(__file__).parents[1] / "forge_operator").rglob("*.py"))

ROOMS = (
    "forge_jobs",
    "forge_jobs.model",
    "forge_jobs.probes",
    "forge_jobs.settings",
    "forge_jobs.telemetry",
)
"""Packages that say what they offer to any program."""


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """Yield module and name of everything that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def is_public(module: str, name: str) -> bool:
    if module == "forge_jobs.errors":
        return issubclass(getattr(forge_jobs.errors, name), forge_jobs.ForgeError)
    return module in ROOMS and name in importlib.import_module(module).__all__


def test_only_public_names_of_the_library_are_used() -> None:
    used = {
        (file.name, module, name)
        for file in SOURCES
        for module, name in imports(file)
        if module.partition(".")[0] == "forge_jobs"
    }

    assert {module for _, module, _ in used} == {*ROOMS, "forge_jobs.errors"}
    assert [name for name in sorted(used) if not is_public(*name[1:])] == []


@pytest.mark.parametrize("room", ROOMS)
def test_what_a_room_of_the_library_offers_exists(room: str) -> None:
    module = importlib.import_module(room)

    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_kopf_and_the_clients_of_kubernetes_are_each_in_one_module() -> None:
    used = {
        (module.partition(".")[0], file.name)
        for file in SOURCES
        for module, _ in imports(file)
        if module.partition(".")[0] in ("kopf", "kubernetes", "aiohttp")
    }

    assert used == {("kopf", "informer.py"), ("kubernetes", "api.py"), ("aiohttp", "api.py")}

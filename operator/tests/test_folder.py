"""The operator's folder has the name of a module of the standard library; these keep that harmless."""

import ast
import operator
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported_modules(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_the_operator_folder_is_not_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_import_operator_finds_the_standard_library() -> None:
    assert operator.add(1, 2) == 3


def test_the_library_never_imports_the_operator() -> None:
    files = list((ROOT / "worker" / "forge_jobs").rglob("*.py"))

    assert files
    assert not [file for file in files if "forge_operator" in imported_modules(file)]

"""What type checkers say to a program: wrong arguments of jobs are errors, and the type of a result is known."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

USES = Path(__file__).parent / "uses.py"
LIBRARY = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(900)  # the checkers look at all of the library, at first without a cache


def wrong_lines() -> dict[int, str]:
    """Return the lines that have to be errors, by their numbers."""
    lines = enumerate(USES.read_text(encoding="utf-8").splitlines(), 1)
    return {number: line.strip() for number, line in lines if "# wrong" in line}


def by_line(numbers: set[int]) -> dict[int, str]:
    lines = USES.read_text(encoding="utf-8").splitlines()
    return {number: lines[number - 1].strip() for number in sorted(numbers)}


def test_mypy_finds_what_is_wrong_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", USES.name],
        cwd=USES.parent,
        env={"MYPYPATH": str(LIBRARY), "MYPY_CACHE_DIR": str(LIBRARY.parent / ".mypy_cache" / "uses")},
        capture_output=True,
        text=True,
    )

    said = re.findall(r"^uses\.py:(\d+): error:", done.stdout, re.MULTILINE)
    assert by_line({int(number) for number in said}) == wrong_lines(), done.stdout + done.stderr


def test_pyright_finds_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    config = {
        "include": [str(USES)],
        "extraPaths": [str(LIBRARY)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "strict",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "basedpyright",
            "--project",
            str(tmp_path),
            "--pythonpath",
            sys.executable,
            "--outputjson",
        ],
        capture_output=True,
        text=True,
    )

    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}
    assert by_line(errors) == wrong_lines(), json.dumps(found, indent=1)

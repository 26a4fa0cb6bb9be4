"""What decides imports nothing that acts."""

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "forge_operator"
PURE = sorted(
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for room in ("plan", "state")
    for file in (PACKAGE / room).rglob("*.py")
)


@pytest.mark.parametrize("package", ("kopf", "kubernetes"))
def test_deciding_needs_neither_kopf_nor_a_client(package: str) -> None:
    assert "forge_operator.plan.queue" in PURE
    imports = "; ".join(f"import {each}" for each in PURE)
    program = f"import sys; {imports}; assert {package!r} not in sys.modules"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr

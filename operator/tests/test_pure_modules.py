"""The modules that decide import nothing that acts."""

import subprocess
import sys

import pytest

PURE = (
    "actions",
    "budget",
    "configuration",
    "cron_plan",
    "deletion",
    "deployment",
    "disruption",
    "drain",
    "judgement",
    "load",
    "memory",
    "naming",
    "observed",
    "plan",
    "pool",
    "queue_report",
    "report",
    "retirement",
    "rollout",
    "scaling",
    "settings",
    "shares",
)


@pytest.mark.parametrize("package", ("kopf", "kubernetes"))
def test_deciding_needs_neither_kopf_nor_a_client(package: str) -> None:
    imports = "; ".join(f"import forge_operator.{each}" for each in PURE)
    program = f"import sys; {imports}; assert {package!r} not in sys.modules"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr

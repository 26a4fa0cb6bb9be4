"""The example of docs/groups.md does what it says."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "groups.py"


def test_the_example_of_groups_runs() -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=100, check=True
    )

    *groups, last = ran.stdout.splitlines()[:5]
    assert sorted(groups) == [
        "customer:ada: 1 of 1",
        "customer:bob: 1 of 1",
        "customer:cyd: 1 of 1",
        "customer:dan: 0 of 1",
    ]
    assert last == "everybody: 3 of 3"
    shipped = ran.stdout.splitlines()[5:]
    assert len(shipped) == 12
    for customer in ("ada", "bob", "cyd", "dan"):
        assert [line for line in shipped if line.startswith(customer)] == [
            f"{customer} {number}" for number in (1, 2, 3)
        ]

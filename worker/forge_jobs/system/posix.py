"""What Linux and macOS have and Windows lacks: forks, groups of processes, and signals to them."""

import os

from forge_jobs.errors import InvalidInput


def require(what: str) -> None:
    """Raise InvalidInput on a system on which `what` cannot run."""
    if not hasattr(os, "fork"):
        raise InvalidInput(
            f"{what} needs forks and signals, which this system lacks; allowed are Linux, macOS, WSL and containers. "
            "Programs that enqueue, their tests and the other commands work here."
        )

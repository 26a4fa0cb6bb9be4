"""Processor time, seen from outside in /proc: of a process and all below it, and of the whole machine."""

import os
from collections.abc import Collection
from pathlib import Path

PROC = Path("/proc")


def tree_seconds(root: int, without: Collection[int] = ()) -> float | None:
    """Return the processor time of a process and all below it so far; None where /proc does not tell.

    That of processes which have ended is in their parent's. Those of `without` are left out.
    """
    if not (PROC / "self/stat").exists():
        return None
    parents: dict[int, int] = {}
    times: dict[int, int] = {}
    for path in PROC.glob("[0-9]*/stat"):
        try:
            # after the name, which may hold anything: state, parent, ...
            numbers = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended just now
        pid = int(path.parent.name)
        parents[pid] = int(numbers[1])
        times[pid] = sum(map(int, numbers[11:15]))
    below = {root} & parents.keys()
    found = below
    while found:
        found = {pid for pid, parent in parents.items() if parent in found} - below
        below = below | found
    return sum(times[pid] for pid in below - set(without)) / os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float | None:
    """Return how long all processors of the machine were busy so far, with what others took from a virtual one."""
    try:
        numbers = [int(number) for number in (PROC / "stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        return None
    user, nice, system, _idle, _waiting, irq, softirq, stolen = numbers
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int | None:
    """Return how much memory a process has, without those below it; None when it is gone or /proc does not tell."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None

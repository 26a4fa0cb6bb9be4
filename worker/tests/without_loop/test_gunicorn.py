"""Under gunicorn, with processes that fork and threads in each, every request that was answered has its job."""

import http.client
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from forge_jobs import Forge, State
from tests.storage.databases import Database

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gunicorn") is None or not hasattr(os, "fork"),
    reason="gunicorn is not installed",
)


class OverSocket(http.client.HTTPConnection):
    """HTTP to a socket that is a file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def got(path: str, user: int) -> tuple[int, int] | None:
    """Return which process answered, and the job; None when nobody did."""
    connection = OverSocket(path)
    try:
        connection.request("GET", f"/{user}")
        response = connection.getresponse()
        process, job = response.read().split()
        return (int(process), int(job)) if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@contextmanager
def serving(url: str, *options: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Give the socket of a gunicorn, and its process; afterwards it has ended by itself."""
    with tempfile.TemporaryDirectory(prefix="forge-jobs-", dir="/tmp") as folder:
        path = f"{folder}/socket"
        command = [
            sys.executable,
            "-m",
            "gunicorn",
            "--workers",
            "3",
            "--threads",
            "4",
            "--bind",
            f"unix:{path}",
        ]
        process = subprocess.Popen(
            [*command, *options, "--no-control-socket", "web:application"]
            if _has_control_socket()
            else [*command, *options, "web:application"],
            cwd=HERE,
            env={**os.environ, "FORGE_DATABASE_URL": url, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until = time.monotonic() + 60
            while got(path, 0) is None:
                assert process.poll() is None and time.monotonic() < until
            yield path, process
        finally:
            process.terminate()
            _, said = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "Traceback" not in said


def _has_control_socket() -> bool:
    said = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--help"], capture_output=True, text=True, check=True
    ).stdout
    return "--no-control-socket" in said


@pytest.mark.parametrize("preload", [False, True])
def test_every_answered_request_has_its_job(database: Database, forge: Forge, preload: bool) -> None:
    forge.sync.open()
    options = ["--preload"] if preload else []
    environment = {"ENQUEUES_AT_IMPORT": "1"} if preload else {}

    with serving(database.url, *options, **environment) as (path, process):
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda user: got(path, user), range(1, 101)))
            process.send_signal(signal.SIGHUP)  # other workers take the place of these
            answers += threads.map(lambda user: got(path, user), range(101, 201))
            users = itertools.count(201)
            while (
                len({answer[0] for answer in answers if answer is not None}) == 1
            ):  # none of those was ready yet
                answers.append(got(path, next(users)))

    answered = [answer for answer in answers if answer is not None]
    jobs = {job for _, job in answered}
    assert len(answered) >= 190  # a worker that ends drops what it had not begun
    assert len(jobs) == len(answered)
    found = {job.id for job in forge.sync.jobs.list(state=State.PENDING, limit=1000)}
    assert jobs <= found

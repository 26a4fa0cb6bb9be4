"""The examples of docs/fastapi.md, in the servers that people run them in."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest

from tests.working.eventually import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGE = Path(__file__).parents[2] / "docs" / "fastapi.md"

TABLE = """
import pytest
from sqlalchemy import text
from web_shop import engine

@pytest.fixture(autouse=True)
async def tables():
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE web_order (id bigint GENERATED ALWAYS AS IDENTITY, item text, confirmed boolean)"))
    yield
    await engine.dispose()
"""

ASKS = """
from flask_shop import app
answer = app.test_client().post("/orders/a book")
print(answer.status_code, answer.json)
"""


@pytest.fixture
async def url(postgres_server: str) -> AsyncIterator[str]:
    """The URL of an empty database."""
    connection = await asyncpg.connect(postgres_server)
    await connection.execute("DROP DATABASE IF EXISTS web_shop WITH (FORCE)")
    await connection.execute("CREATE DATABASE web_shop")
    yield urlunsplit(urlsplit(postgres_server)._replace(path="/web_shop")).replace(":///", "://@/")
    await connection.execute("DROP DATABASE web_shop WITH (FORCE)")
    await connection.close()


@asynccontextmanager
async def uvicorn(
    url: str, folder: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.subprocess.Process]]:
    """A client of the shop in a real uvicorn, and its process."""
    socket = folder / "socket"
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "--uds", str(socket), "web_shop:app"),
        env={**os.environ, "FORGE_DATABASE_URL": url},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            await eventually(lambda: socket.exists() or server.returncode is not None)
            assert server.returncode is None, "uvicorn has ended by itself"
            yield client, server
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()


async def test_an_order_and_its_job_are_one_transaction_and_a_worker_beside_runs_it(
    url: str, tmp_path: Path
) -> None:
    async with uvicorn(url, tmp_path) as (client, server):
        ordered = await client.post("/orders", params={"item": "a book"})
        refused = await client.post("/orders", params={"item": "a bike"})
        job = ordered.json()["job"]

        async def done() -> bool:
            return (await client.get(f"/jobs/{job}")).json()["state"] == "done"

        await eventually(done)
        assert (await client.get(f"/jobs/{job}")).json()["result"] == "order 1, a book, is confirmed"
        assert (ordered.status_code, refused.status_code) == (202, 409)
        assert (await client.get(f"/jobs/{job + 1}")).status_code == 404

        connection = await asyncpg.connect(url)
        assert await connection.fetch("SELECT item, confirmed FROM web_order") == [("a book", True)]
        assert await connection.fetchval("SELECT count(*) FROM forge_jobs.job") == 1

        server.send_signal(signal.SIGTERM)
        _, said = await server.communicate()
        assert b"Application shutdown complete" in said and b"Traceback" not in said
        assert await connection.fetchval("SELECT count(*) FROM forge_jobs.worker") == 0
        await connection.close()


def test_the_shop_is_tested_without_a_server_as_the_page_says(url: str, tmp_path: Path) -> None:
    [block] = [
        text
        for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "ASGITransport" in text
    ]
    (tmp_path / "test_shop.py").write_text(block)
    (tmp_path / "conftest.py").write_text(TABLE)
    settings = (
        "asyncio_mode=auto",
        "asyncio_default_fixture_loop_scope=function",
        "forge_app=web_shop:forge",
    )
    options = [part for setting in (*settings, f"forge_postgres_url={url}") for part in ("-o", setting)]

    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:cacheprovider",
            *options,
        ],
        cwd=tmp_path,
        env={**os.environ, "FORGE_DATABASE_URL": url, "PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr


async def test_the_shop_in_flask_enqueues_without_an_event_loop(url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "FORGE_DATABASE_URL": url, "PYTHONPATH": str(EXAMPLES)}
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE flask_order (id bigint GENERATED ALWAYS AS IDENTITY, item text)")

    def run(*command: str) -> str:
        ran = subprocess.run(
            [sys.executable, *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    await asyncio.to_thread(run, "-m", "forge_jobs", "db", "migrate")
    await asyncio.to_thread(run, "-m", "forge_jobs", "queues", "set", "mail", "--concurrency", "20")
    answered = await asyncio.to_thread(run, "-c", ASKS)
    await asyncio.to_thread(
        run, "-m", "forge_jobs", "worker", "flask_shop:forge", "--queues", "mail", "--until-empty"
    )

    assert answered.strip() == "202 {'job': 1, 'order': 1}"
    assert '"order 1, a book, is confirmed"' in run("-m", "forge_jobs", "jobs", "show", "1", "--json")
    await connection.close()

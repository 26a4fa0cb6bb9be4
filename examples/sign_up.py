"""A web application without an event loop: whoever signs up is written down together with the job that welcomes them.

Any WSGI server runs it, such as `gunicorn --threads 4 examples.sign_up:application`. `python examples/sign_up.py` serves
a few requests itself, in threads, and then works on the jobs.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from urllib.request import urlopen
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from forge_jobs import Forge, Worker

forge = Forge()


@forge.handler
def welcome(user: int) -> str:
    return f"welcomed user {user}"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/ada` signs up, with a job in the same transaction; `/` says how many jobs wait."""
    name = environ["PATH_INFO"].strip("/")
    if name:
        path = forge.settings.database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
            user = connection.execute("INSERT INTO user (name) VALUES (?)", (name,)).lastrowid
            assert user is not None
            job = welcome.options(connection=connection).enqueue_sync(user=user)
        answer = f"job {job.id}"
    else:
        answer = f"{len(forge.sync.jobs.list(state='pending'))} jobs wait"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread."""


class QuietHandler(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged."""


async def work() -> None:
    """The jobs are done."""
    async with forge:
        await Worker(forge, queues=["default"]).run(until_empty=True)


def main() -> None:
    forge.sync.open()  # the tables are there
    path = forge.settings.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS user (id integer PRIMARY KEY, name text)")
    with make_server("127.0.0.1", 0, application, ThreadingServer, QuietHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        urls = [f"http://127.0.0.1:{server.server_port}/{name}" for name in ("ada", "bob", "cyd")]
        with ThreadPoolExecutor(3) as threads:
            answers = list(threads.map(lambda url: urlopen(url).read().decode(), urls))
        print(urlopen(f"http://127.0.0.1:{server.server_port}/").read().decode())
        server.shutdown()
    asyncio.run(work())
    jobs = [int(answer.removeprefix("job ")) for answer in answers]
    print(sorted(forge.sync.wait_all(jobs)))


if __name__ == "__main__":
    main()

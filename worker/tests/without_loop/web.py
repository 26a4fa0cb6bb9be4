"""A WSGI application for gunicorn, whose database FORGE_DATABASE_URL names."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from forge_jobs import Forge

forge = Forge()


@forge.handler
def welcome(user: int) -> None: ...


if os.environ.get("ENQUEUES_AT_IMPORT"):  # with --preload, in the parent of all workers
    forge.sync.enqueue("welcome", {"user": 0})


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/7` welcomes user 7; answers with the id of the process and that of the job."""
    job = welcome.enqueue_sync(user=int(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {job.id}".encode()]

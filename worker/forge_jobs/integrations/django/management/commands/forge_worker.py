"""`manage.py forge_worker` runs the tasks of a backend."""

import asyncio
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from forge_jobs.errors import ForgeError
from forge_jobs.integrations.django.backend import ForgeBackend
from forge_jobs.integrations.django.connection_care import begin_to_work, pool_of
from forge_jobs.integrations.django.program import chosen_backend
from forge_jobs.worker.worker import Worker


class Command(BaseCommand):  # type: ignore[misc]  # which has no types here
    """Runs tasks until it is told to stop by SIGTERM or SIGINT."""

    help = "Run the tasks of a backend of forge-jobs, until SIGTERM or SIGINT."

    def add_arguments(self, parser: Any) -> None:
        """The arguments of the command are known."""
        parser.add_argument("--backend", default="default", help="its alias in TASKS")
        parser.add_argument(
            "--queues",
            default="",
            help="with commas between them; default: those of the backend, or all that there are",
        )
        parser.add_argument("--concurrency", type=int, default=10, help="how many tasks run at once")
        parser.add_argument(
            "--grace", type=float, default=25.0, help="seconds that running tasks have to end"
        )
        parser.add_argument("--until-empty", action="store_true", help="do what is there, and end")

    def handle(self, **options: Any) -> None:
        """The worker has run. Raises CommandError for what the user did wrong."""
        try:
            backend = chosen_backend(options["backend"])
        except ForgeError as error:
            raise CommandError(str(error)) from error
        self._say_small_pool(backend, options["concurrency"])
        queues = [name for name in options["queues"].split(",") if name] or sorted(backend.queues)
        begin_to_work()
        try:
            asyncio.run(_work(backend, queues, options))
        except ForgeError as error:
            raise CommandError(str(error)) from error

    def _say_small_pool(self, backend: ForgeBackend, concurrency: int) -> None:
        most = pool_of(backend.database)
        if most is not None and most < concurrency:
            self.stderr.write(
                f"The pool of the database {backend.database!r} has at most {most} connections for {concurrency} tasks at once, "
                "which wait for each other; say OPTIONS['pool']['max_size'], or --concurrency."
            )


async def _work(backend: ForgeBackend, queues: list[str], options: dict[str, Any]) -> None:
    forge = backend.forge
    async with forge:
        await forge.queues.ensure(*queues)
        queues = queues or [queue.name for queue in await forge.queues.list()]  # QUEUES of TASKS says: any
        worker = Worker(
            forge,
            queues=queues,
            concurrency=options["concurrency"],
            grace=timedelta(seconds=options["grace"]),
        )
        await worker.run(until_empty=options["until_empty"], handle_signals=True)

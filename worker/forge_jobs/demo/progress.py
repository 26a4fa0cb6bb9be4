"""The live line of a demonstration: how far the queue is, and how fast."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from forge_jobs.demo.watch import DemoWatch
from forge_jobs.model.run import Outcome

Show = Callable[[DemoWatch], None]


@contextmanager
def progress(jobs: int, console: Console) -> Iterator[Show]:
    """Show a bar inside the block; call what is given for every change."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("jobs"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[retries]} retried, {task.fields[dead]} dead, cron fired {task.fields[fires]} times"
        ),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=jobs, rate=0.0, retries=0, dead=0, fires=0)

        def show(watch: DemoWatch) -> None:
            done = watch.ended.total()
            elapsed = bar.tasks[0].elapsed or 0.0
            if elapsed and done <= jobs:  # afterwards only the cron's jobs come in
                bar.update(task, rate=done / elapsed)
            bar.update(
                task,
                completed=min(done, jobs),
                retries=watch.outcomes[Outcome.FAILED],
                dead=watch.outcomes[Outcome.DEAD],
                fires=watch.cron_fires,
            )

        yield show

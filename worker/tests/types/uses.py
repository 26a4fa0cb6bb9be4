"""Uses of handlers as type checkers see them: every line that says `wrong` is an error, and no other is. It is never run."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

from forge_jobs import Batch, BatchJob, Context, Enqueued, Forge, Handler, Job, KeyLimit, Step, Unique

forge = Forge()


@forge.handler
async def send_email(to: str, subject: str = "Hello") -> int:
    return len(to + subject)


@forge.handler(
    queue="mail", max_attempts=8, timeout=timedelta(seconds=30), limits=[KeyLimit("smtp", by="to")]
)
async def greet(ctx: Context, to: str) -> str:
    return f"{to} at attempt {ctx.attempt}"


@forge.handler(executor="process", max_attempts=None)
def resize(width: int, *, quality: float = 0.9) -> float:
    return width * quality


@forge.handler
def report(ctx: Context, month: int) -> bool:
    return ctx.attempt == month


@forge.handler(unique=Unique(by=None), title="All at once")
async def clean_up() -> None: ...


@forge.handler
async def ingest(document: Any, source: str = "") -> list[str]:
    return [str(document), source]


@dataclass
class Row:
    """What a job of the batch has."""

    url: str


@forge.handler(batch=Batch(size=100))
async def insert(jobs: list[BatchJob[Row]]) -> list[None]:
    return [None for _ in jobs]


async def right() -> None:
    job = await send_email.enqueue(to="ada")
    assert_type(job, Enqueued[int])
    assert_type(await forge.wait(job, timeout=5), int)
    assert_type(await forge.wait(job.id), Any)
    assert_type(await forge.wait(job.id, returns=float), float)
    assert_type(await forge.wait_all([job, job], timeout=5), list[int])
    assert_type(await forge.wait_all([job.id, job], returns=float), list[float])
    assert_type(await forge.wait_all([job.id], return_exceptions=True), list[Any])

    await send_email.enqueue("ada")
    await send_email.enqueue("ada", "Bye")
    await send_email.enqueue("ada", subject="Bye")

    assert_type(await forge.wait(await greet.enqueue(to="ada")), str)
    assert_type(await forge.wait(await resize.enqueue(300, quality=0.5)), float)
    assert_type(await forge.wait(await report.enqueue(month=5)), bool)
    assert_type(await clean_up.enqueue(), Enqueued[None])
    await ingest.enqueue(document={"a": 1})
    await ingest.enqueue({"a": 1}, source="mail")
    await insert.enqueue(url="https://example.com")

    assert_type(await send_email.enqueue_many([{"to": "ada"}, {"to": "bob"}]), list[Enqueued[int]])
    later = send_email.options(delay=5, max_attempts=None, tags=["welcome"], start_by=datetime.now(UTC))
    assert_type(await later.enqueue("ada"), Enqueued[int])
    await forge.enqueue_batch([send_email.job("ada"), later.job(to="bob"), forge.job("greet", {"to": "bob"})])
    assert_type(await forge.wait(await forge.enqueue("greet", {"to": "ada"})), Any)

    assert_type(await send_email("ada"), int)
    assert_type(resize(300), float)
    await greet(context(), "ada")
    takes_a_handler(send_email)
    takes_any_handlers({"resize": resize, "greet": greet})


async def steps(ctx: Context) -> None:
    assert_type(await ctx.step("price", price, 7), float)
    assert_type(await ctx.step(Step("price", attempts=3), price, order=7), float)
    assert_type(await ctx.step("later", lambda: price(7)), float)
    await ctx.step("plain", len, "text")
    await ctx.sleep(timedelta(days=3))


async def price(order: int) -> float:
    return 0.5 * order


def context() -> Context:
    raise NotImplementedError


def takes_a_handler(handler: Handler[[str, str], int]) -> None: ...


def takes_any_handlers(handlers: Mapping[str, Handler[Any, Any]]) -> None: ...


async def wrong() -> None:
    await send_email.enqueue(to=3)  # wrong: the type
    await send_email.enqueue(3)  # wrong: the type
    await send_email.enqueue()  # wrong: it is missing
    await send_email.enqueue(to="ada", body="")  # wrong: there is no such argument
    await send_email.enqueue("ada", "Bye", "now")  # wrong: one too many
    await greet.enqueue(to=3)  # wrong: the type
    await greet.enqueue(context(), "ada")  # wrong: the context is not given
    await resize.enqueue(width="300")  # wrong: the type
    await resize.enqueue(300, 0.5)  # wrong: quality has no place
    await report.enqueue(month="May")  # wrong: the type
    await clean_up.enqueue(1)  # wrong: it takes nothing
    await send_email.options(delay=5).enqueue(to=3)  # wrong: the type
    send_email.options(delay=5).job(to=3)  # wrong: the type
    send_email.options(dealy=5)  # wrong: there is no such option
    send_email.options(priority="high")  # wrong: the type of an option
    send_email.options(title="Mail")  # wrong: an option of handlers
    forge.handler(max_retries=3)  # wrong: there is no such option
    forge.handler(executor="fork")  # wrong: allowed are thread and process
    forge.handler(delay=5)  # wrong: an option of jobs
    text: str = await forge.wait(await send_email.enqueue(to="ada"))  # wrong: it is a number
    send_email.enqueue(to="ada")  # wrong: nobody awaits it
    await send_email(3)  # wrong: the type
    await greet("ada")  # wrong: a call has the context
    print(text)


async def wrong_steps(ctx: Context) -> None:
    await ctx.step("price", price, "7")  # wrong: the type
    await ctx.step("price", price)  # wrong: it is missing
    (await ctx.step("price", price, 7)).upper()  # wrong: it is a number


def without_a_loop() -> None:
    job = send_email.enqueue_sync("ada", subject="Hi")
    assert_type(job, Enqueued[int])
    assert_type(forge.sync.wait(job, timeout=5), int)
    assert_type(forge.sync.wait_all(greet.options(delay=5).enqueue_many_sync([{"to": "ada"}])), list[str])
    assert_type(forge.sync.jobs.get(job), Job)
    forge.sync.enqueue("send_email", {"to": "ada"}, priority=3)
    send_email.enqueue_sync(to=3)  # wrong: the type
    forge.sync.enqueue("send_email", {}, dealy=5)  # wrong: there is no such option
    forge.sync.jobs.list(limit="ten")  # wrong: the type
    forge.sync.queues.set(5)  # wrong: the type

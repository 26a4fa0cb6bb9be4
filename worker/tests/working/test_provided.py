"""What handlers are provided with: made once a process or once for each call, and closed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import pytest

from forge_jobs import (
    PROVIDED,
    Context,
    Forge,
    InvalidInput,
    InvalidPayload,
    Job,
    JobCall,
    KeyLimit,
    Plugin,
    Provided,
    State,
    Worker,
)
from forge_jobs.plugins import hook_timer
from forge_jobs.telemetry.events import HookWaits
from tests.storage.databases import Database
from tests.working.events import Events


class Pool:
    """Something that takes long to make and has to be closed."""

    def __init__(self, name: str = "pool") -> None:
        self.name = name
        self.is_closed = False


class Lent:
    """Something of a pool, for one call."""

    def __init__(self, pool: Pool, job_id: int) -> None:
        self.pool, self.job_id = pool, job_id


@pytest.fixture
def forge(database: Database) -> Forge:
    """A Forge on the test's own database, which is not open yet."""
    return Forge(storage=database.storage())


async def run(forge: Forge, concurrency: int = 4) -> None:
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=concurrency).run(until_empty=True)


async def jobs_of(forge: Forge, function: Callable[..., Any], count: int = 1, **options: Any) -> list[Job]:
    """Run so many jobs of a handler that is declared so, without arguments; return them."""
    handler = forge.handler(kind="work", **options)(function)
    async with forge:
        await forge.queues.set("default", backoff_enabled=False)
        made = await forge.enqueue_many(handler.kind, [{}] * count)
        await run(forge)
        return [await forge.jobs.get(job.id) for job in made]


def states(jobs: list[Job]) -> set[State]:
    return {job.state for job in jobs}


@pytest.mark.parametrize("is_plain", [False, True], ids=["async", "thread"])
async def test_a_thing_of_the_process_is_made_once_for_all_jobs_and_closed_with_the_forge(
    forge: Forge, is_plain: bool
) -> None:
    pools: list[Pool] = []
    seen: list[tuple[Pool, bool]] = []

    @asynccontextmanager
    async def pool() -> AsyncIterator[Pool]:
        await asyncio.sleep(0)
        pools.append(Pool())
        yield pools[-1]
        pools[-1].is_closed = True

    async def work(pool: Provided[Pool] = PROVIDED) -> None:
        seen.append((pool, pool.is_closed))

    def work_in_a_thread(pool: Provided[Pool]) -> None:
        seen.append((pool, pool.is_closed))

    forge.provide(Pool, pool)
    jobs = await jobs_of(forge, work_in_a_thread if is_plain else work, 20)

    assert states(jobs) == {State.DONE}
    assert len(pools) == 1 and pools[0].is_closed
    assert seen == [(pools[0], False)] * 20


async def test_a_thing_of_a_call_is_closed_after_its_handler_and_hears_of_its_failure(forge: Forge) -> None:
    notes: list[str] = []

    @asynccontextmanager
    async def lent(ctx: Context, pool: Provided[Pool]) -> AsyncIterator[Lent]:
        notes.append(f"{pool.name} lends")
        try:
            yield Lent(pool, ctx.job_id)
        except ValueError:
            notes.append("rolled back")
            raise
        notes.append("committed")

    async def work(ctx: Context, lent: Provided[Lent], again: Provided[Lent]) -> None:
        assert lent is again
        notes.append(f"job {lent.job_id - ctx.job_id}")
        if ctx.attempt == 1:
            raise ValueError("boom")

    forge.provide(Pool, Pool)
    forge.provide(Lent, lent, per="job")
    [job] = await jobs_of(forge, work)

    assert (job.state, job.attempt) == (State.DONE, 2)
    assert notes == ["pool lends", "job 0", "rolled back", "pool lends", "job 0", "committed"]


async def test_what_is_made_of_another_thing_is_closed_before_it(forge: Forge) -> None:
    closed: list[str] = []

    class Engine:
        """Made of a pool."""

    @asynccontextmanager
    async def pool() -> AsyncIterator[Pool]:
        yield Pool()
        closed.append("pool")

    @asynccontextmanager
    async def engine(pool: Provided[Pool]) -> AsyncIterator[Engine]:
        yield Engine()
        closed.append("engine")

    async def work(engine: Provided[Engine]) -> None: ...

    forge.provide(Engine, engine)
    forge.provide(Pool, pool)
    await jobs_of(forge, work)

    assert closed == ["engine", "pool"]


class Session:
    """Its own context manager, as clients of many libraries are."""

    def __init__(self) -> None:
        self.entered = self.left = 0

    async def __aenter__(self) -> "Session":
        self.entered += 1
        return self

    async def __aexit__(self, *error: object) -> None:
        self.left += 1


@contextmanager
def plain_manager() -> Iterator[Session]:
    yield Session()


async def awaited() -> Session:
    return Session()


@pytest.mark.parametrize(
    ("factory", "entered"), [(Session, 1), (awaited, 1), (plain_manager, 0)], ids=["class", "async", "plain"]
)
async def test_what_a_factory_gives_is_awaited_and_entered_where_that_has_to_be(
    forge: Forge, factory: Callable[[], Any], entered: int
) -> None:
    seen: list[Session] = []

    async def work(session: Provided[Session]) -> None:
        seen.append(session)

    forge.provide(Session, factory)
    jobs = await jobs_of(forge, work, 2)

    assert states(jobs) == {State.DONE}
    assert seen[0] is seen[1]
    assert (seen[0].entered, seen[0].left) == (entered, entered)


async def test_a_lock_is_provided_for_handlers_to_take(forge: Forge) -> None:
    async def work(lock: Provided[asyncio.Lock]) -> None:
        assert not lock.locked()
        async with lock:
            pass

    forge.provide(asyncio.Lock, asyncio.Lock)

    assert states(await jobs_of(forge, work, max_attempts=1)) == {State.DONE}


class Greets(Protocol):
    """What a thing can do."""

    def greet(self) -> str: ...


class Greeter:
    def greet(self) -> str:
        return "hello"


async def test_a_protocol_may_be_provided(forge: Forge) -> None:
    async def work(greeter: Provided[Greets]) -> str:
        return greeter.greet()

    forge.provide(Greets, Greeter)
    [job] = await jobs_of(forge, work)

    assert job.result == b'"hello"'


async def test_a_factory_that_fails_fails_the_attempt_and_is_asked_again(forge: Forge) -> None:
    tries: list[int] = []

    async def pool() -> Pool:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("not yet")
        return Pool()

    async def work(pool: Provided[Pool]) -> None: ...

    forge.provide(Pool, pool)
    [job] = await jobs_of(forge, work)

    assert (job.state, job.attempt, len(tries)) == (State.DONE, 2, 2)
    async with forge:
        assert "ConnectionError: not yet" in (await forge.jobs.get(job.id)).failures[0].error


async def test_a_job_that_is_told_to_stop_while_a_thing_is_made_does_not_stop_that(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_timer, "LONG_HOOK", 0.01)
    tries: list[int] = []
    opened = asyncio.Event()

    async def pool() -> Pool:
        tries.append(1)
        await opened.wait()
        return Pool()

    class Opens(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            if ctx.attempt == 2:
                opened.set()
            return await call()

    async def work(pool: Provided[Pool]) -> None: ...

    forge.use(Opens())
    forge.provide(Pool, pool)
    [job] = await jobs_of(forge, work, timeout=0.3)

    assert (job.state, job.attempt, len(tries)) == (State.DONE, 2, 1)
    assert {event.hook for event in events.of(HookWaits)} == {"provide(Pool)"}


async def test_what_is_provided_is_no_argument_of_a_job(forge: Forge) -> None:
    seen: list[tuple[str, str]] = []

    def cost(to: str) -> float:
        return len(to)

    async def work(to: str, pool: Provided[Pool] = PROVIDED) -> None:
        seen.append((to, pool.name))

    forge.provide(Pool, Pool)
    handler = forge.handler(limits=[KeyLimit("mail", by="to", cost=cost)])(work)
    async with forge:
        await forge.limits.set("mail", 100, per=1)
        with pytest.raises(InvalidPayload, match="it takes to"):
            await forge.enqueue("work", {"to": "ada", "pool": 1})
        await handler.enqueue("ada")
        await run(forge)

    assert seen == [("ada", "pool")]
    await handler("bob", Pool("of a test"))
    assert seen[-1] == ("bob", "of a test")


async def test_a_job_is_refused_what_is_not_provided_when_the_worker_starts(forge: Forge) -> None:
    @forge.handler
    async def work(pool: Provided[Pool]) -> None: ...

    forge.provide(Session, Session)
    with pytest.raises(InvalidInput) as refused:
        await run(forge)

    assert str(refused.value) == (
        "Handler 'work' takes Provided[Pool] as 'pool', and forge.provide(Pool, ...) is not said; provided: Session."
    )


async def test_what_cannot_be_made_is_refused_when_the_worker_starts(forge: Forge) -> None:
    @forge.handler
    async def work(pool: Provided[Pool]) -> None: ...

    def pool(session: Provided[Session]) -> Pool:
        return Pool()

    def session(pool: Provided[Pool]) -> Session:
        return Session()

    forge.provide(Pool, pool)
    forge.provide(Session, session)
    with pytest.raises(InvalidInput, match="needs itself: Pool needs Session needs Pool"):
        await run(forge)


async def test_what_lives_longer_may_not_be_made_of_what_lives_for_a_call(forge: Forge) -> None:
    @forge.handler
    async def work(pool: Provided[Pool]) -> None: ...

    def pool(session: Provided[Session]) -> Pool:
        return Pool()

    forge.provide(Pool, pool)
    forge.provide(Session, Session, per="job")
    with pytest.raises(
        InvalidInput, match="The factory of Pool, which is made once a process, takes Session"
    ):
        await run(forge)


def of_a_process(pool: Provided[Pool]) -> None: ...


def test_a_process_of_its_own_can_be_provided_with_nothing() -> None:
    with pytest.raises(
        InvalidInput, match="takes Provided\\[Pool\\] as 'pool', which cannot be sent to a process"
    ):
        Forge("sqlite://:memory:").handler(executor="process")(of_a_process)


def yields() -> Iterator[Pool]:
    yield Pool()


async def yields_async() -> AsyncIterator[Pool]:
    yield Pool()


@pytest.mark.parametrize(
    ("factory", "options", "sentence"),
    [
        (3, {}, "The factory of Pool is 3, allowed is a function."),
        (Pool, {"per": "request"}, "per is 'request', allowed is one of process, job."),
        (
            lambda host: Pool(),
            {},
            "The factory of Pool takes 'host', allowed are ctx: Context and parameters that",
        ),
        (
            lambda ctx: Pool(),
            {},
            "The factory of Pool takes the context of a job, and is called once a process",
        ),
        (yields, {}, "The factory of Pool yields, allowed is one under @contextlib.contextmanager."),
        (
            yields_async,
            {},
            "The factory of Pool yields, allowed is one under @contextlib.asynccontextmanager.",
        ),
    ],
    ids=["number", "per", "parameter", "context", "generator", "async generator"],
)
def test_a_factory_that_cannot_be_called_is_refused(
    factory: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        Forge("sqlite://:memory:").provide(Pool, factory, **options)

    assert str(refused.value).startswith(sentence)


def test_a_thing_is_provided_once() -> None:
    forge = Forge("sqlite://:memory:")
    forge.provide(Pool, Pool)

    with pytest.raises(InvalidInput, match="Pool is provided already, allowed is once"):
        forge.provide(Pool, Pool)

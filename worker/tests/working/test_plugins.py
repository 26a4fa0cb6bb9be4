"""Plugins: what a program does at moments in the life of its forge and its jobs, and what becomes of jobs when it goes wrong."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from forge_jobs import (
    Context,
    Dead,
    Draft,
    Forge,
    InvalidInput,
    InvalidPayload,
    Job,
    JobCall,
    NotEnqueued,
    Plugin,
    State,
    Worker,
)
from forge_jobs.plugins import hook_timer
from forge_jobs.telemetry.events import (
    Event,
    HookFailed,
    HookWaits,
    JobsEnded,
    JobStarted,
    SubscriberFailed,
    WorkerStarted,
    WorkerStopped,
)
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.fixture
def forge(database: Database) -> Forge:
    """A Forge on the test's own database, which is not open yet."""
    return Forge(storage=database.storage())


async def run(forge: Forge) -> None:
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def one(forge: Forge, function: Callable[..., Any], payload: Any = None, **options: Any) -> Job:
    """Run one job of a handler that is declared so; return it."""
    handler = forge.handler(kind="work", **{"max_attempts": 1, **options})(function)
    async with forge:
        job = await forge.enqueue(handler.kind, payload)
        await run(forge)
        return await forge.jobs.get(job.id)


def result(job: Job) -> bytes | None:
    assert job.state is State.DONE, job.error
    return job.result


async def add(first: int, second: int = 1) -> int:
    return first + second


def add_in_a_thread(ctx: Context, first: int, second: int = 1) -> int:
    return first + second


class Notes(Plugin):
    """Writes down what it stands around."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    async def around(self, ctx: Context, call: JobCall) -> Any:
        self.notes.append(f"{self.name} before {ctx.kind} {call.arguments}")
        value = await call()
        self.notes.append(f"{self.name} after {value}")
        return value


@pytest.mark.parametrize("function", [add, add_in_a_thread])
async def test_plugins_stand_around_each_attempt_the_first_one_outermost(
    forge: Forge, function: Callable[..., Any]
) -> None:
    notes: list[str] = []
    forge.use(Notes("outer", notes))
    forge.use(Notes("inner", notes))

    job = await one(forge, function, {"first": 2})

    assert result(job) == b"3"
    assert notes == [
        "outer before work {'first': 2}",
        "inner before work {'first': 2}",
        "inner after 3",
        "outer after 3",
    ]


async def test_a_plugin_stands_around_a_handler_that_runs_in_a_process(forge: Forge) -> None:
    notes: list[str] = []
    forge.use(Notes("it", notes))
    handler = forge.handler(executor="process")(len_of)
    async with forge:
        job = await handler.enqueue(text="four")
        await run(forge)
        ended = await forge.jobs.get(job.id)

    assert (result(ended), notes[-1]) == (b"4", "it after 4")


def len_of(text: str) -> int:
    return len(text)


async def test_a_plugin_may_answer_instead_of_the_handler(forge: Forge) -> None:
    class Skips(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            return "skipped"

    called: list[int] = []

    async def work() -> None:
        called.append(1)

    forge.use(Skips())

    assert result(await one(forge, work)) == b'"skipped"'
    assert called == []


async def test_a_plugin_may_give_other_arguments_and_another_result(forge: Forge) -> None:
    class Doubles(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            return 2 * await call(second=10)

    forge.use(Doubles())

    assert result(await one(forge, add, {"first": 1})) == b"22"


async def test_a_plugin_may_decide_that_the_job_is_dead(forge: Forge, events: Events) -> None:
    class Refuses(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            raise Dead("not in this shop")

    forge.use(Refuses())
    job = await one(forge, add, {"first": 1}, max_attempts=5)

    assert (job.state, job.error) == (State.DEAD, "not in this shop")
    assert events.of(HookFailed) == []


async def test_a_plugin_may_let_a_failed_handler_count_as_done(forge: Forge) -> None:
    class Forgives(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            try:
                return await call()
            except ValueError:
                return "forgiven"

    async def work() -> None:
        raise ValueError("boom")

    forge.use(Forgives())

    assert result(await one(forge, work)) == b'"forgiven"'


async def test_what_a_handler_raises_is_not_said_of_the_plugin_that_lets_it_through(
    forge: Forge, events: Events
) -> None:
    class Translates(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            try:
                return await call()
            except ValueError as error:
                raise RuntimeError("translated") from error

    async def work() -> None:
        raise ValueError("boom")

    forge.use(Notes("it", []))
    forge.use(Translates())
    job = await one(forge, work)

    assert job.error is not None and "translated" in job.error
    assert events.of(HookFailed) == []


@pytest.mark.parametrize("error", [RuntimeError("the plugin broke"), SystemExit(3)])
async def test_a_plugin_that_raises_fails_the_attempt_and_the_job_goes_on(
    forge: Forge, events: Events, error: BaseException
) -> None:
    class Breaks(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            if ctx.attempt == 1:
                raise error
            return await call()

    forge.use(Breaks())
    async with forge:
        await forge.queues.set("default", backoff_enabled=False)
        job = await one(forge, add, {"first": 1}, max_attempts=3)

    assert (result(job), job.attempt) == (b"2", 2)
    if isinstance(error, Exception):
        [failed] = events.of(HookFailed)
        assert (failed.hook, failed.error) == ("Breaks.around", error)
        assert failed.claim is not None and failed.claim.job_id == job.id


async def test_a_plugin_that_hangs_is_said_and_its_job_times_out_as_any_other(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_timer, "LONG_HOOK", 0.01)

    class Hangs(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            await asyncio.Event().wait()

    forge.use(Hangs())
    job = await one(forge, add, {"first": 1}, timeout=0.3)

    assert (job.state, job.error) == (State.DEAD, "timed out after 0.3 s")
    waits = events.of(HookWaits)[0]
    assert waits.hook == "Hangs.around" and waits.claim is not None and waits.claim.job_id == job.id


async def test_a_plugin_that_does_not_wait_for_its_call_is_said(forge: Forge, events: Events) -> None:
    ran: list[str] = []
    has_begun, tasks = asyncio.Event(), list[asyncio.Task[Any]]()

    class Leaves(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            tasks.append(asyncio.create_task(call()))  # type: ignore[arg-type]
            if ctx.kind == "work":
                await has_begun.wait()

    async def work() -> None:
        has_begun.set()
        await asyncio.Event().wait()

    forge.use(Leaves())
    forge.handler(kind="late")(lambda: ran.append("late"))
    async with forge:
        await forge.enqueue("late")
        await one(forge, work)
    [begun] = [task for task in tasks if not task.done()]
    begun.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert ran == []
    assert {str(event.error) for event in events.of(HookFailed)} == {
        "it returned before its call",
        "it calls the handler of a job that has ended",
    }


async def test_a_handler_that_takes_long_is_not_said_of_its_plugins(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_timer, "LONG_HOOK", 0.01)
    loop = asyncio.get_running_loop()

    async def work() -> None:
        over = asyncio.Event()
        loop.call_later(0.05, over.set)
        await over.wait()

    class Quick(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            return await call()

    forge.use(Quick())
    await one(forge, work)

    assert events.of(HookWaits) == []


async def test_the_job_of_a_plugin_that_hangs_is_handed_back_when_the_worker_stops(forge: Forge) -> None:
    hangs = asyncio.Event()

    class Hangs(Plugin):
        async def around(self, ctx: Context, call: JobCall) -> Any:
            hangs.set()
            await asyncio.Event().wait()

    forge.use(Hangs())
    handler = forge.handler(add)
    async with forge:
        job = await handler.enqueue(first=1)
        async with working(forge, grace=0.1):
            await hangs.wait()
        left = await forge.jobs.get(job.id)

    assert (left.state, left.attempt) == (State.PENDING, 0)


class Lives(Plugin):
    """Writes down when it is started and stopped."""

    def __init__(self, name: str, notes: list[str], *, fails: str = "") -> None:
        self.name, self.notes, self.fails = name, notes, fails

    async def on_startup(self, forge: Forge) -> None:
        self._note("startup")

    async def on_shutdown(self, forge: Forge) -> None:
        self._note("shutdown")

    def _note(self, what: str) -> None:
        self.notes.append(f"{self.name} {what}")
        if self.fails == what:
            raise RuntimeError(f"{self.name} breaks")


async def test_plugins_are_started_before_any_job_and_stopped_after_the_last_one(forge: Forge) -> None:
    notes: list[str] = []

    async def work() -> None:
        notes.append("job")

    forge.use(Lives("first", notes))
    forge.use(Lives("second", notes))
    await one(forge, work)

    assert notes == ["first startup", "second startup", "job", "second shutdown", "first shutdown"]


async def test_a_plugin_that_fails_at_the_end_is_said_and_keeps_no_other_from_its_end(
    forge: Forge, events: Events
) -> None:
    notes: list[str] = []
    forge.use(Lives("first", notes))
    forge.use(Lives("second", notes, fails="shutdown"))

    async with forge:
        pass

    assert notes[-2:] == ["second shutdown", "first shutdown"]
    assert [event.hook for event in events.of(HookFailed)] == ["Lives.on_shutdown"]


async def test_a_plugin_that_fails_at_the_start_keeps_the_worker_from_claiming_anything(
    forge: Forge, database: Database, events: Events
) -> None:
    notes: list[str] = []
    async with Forge(storage=database.storage()) as producer:
        job = await producer.enqueue("add", {"first": 1})
    forge.handler(add)
    forge.use(Lives("first", notes))
    forge.use(Lives("second", notes, fails="startup"))

    with pytest.raises(RuntimeError, match="second breaks"):
        await run(forge)

    assert notes == ["first startup", "second startup", "first shutdown"]
    assert [event.hook for event in events.of(HookFailed)] == ["Lives.on_startup"]
    async with Forge(storage=database.storage()) as other:
        assert (await other.jobs.get(job.id)).state is State.PENDING


class Marks(Plugin):
    """Changes what is enqueued."""

    def before_enqueue(self, job: Draft) -> None:
        assert isinstance(job.arguments, dict)
        if job.arguments.get("first") == 13:
            raise NotEnqueued("13 brings bad luck")
        if job.arguments.get("first") == 14:
            raise RuntimeError("it broke")
        job.arguments["second"] = 5
        job.options["tags"] = [f"kind:{job.kind}"]


async def test_a_plugin_changes_what_is_enqueued_whichever_way(forge: Forge, database: Database) -> None:
    forge.use(Marks())
    handler = forge.handler(add)
    given = {"first": 1}
    async with forge:
        jobs = [
            await handler.enqueue(first=1),
            await forge.enqueue("add", given),
            *await forge.enqueue_many("add", [{"first": 1}]),
            *await forge.enqueue_batch([handler.job(first=1)]),
        ]
        async with database.transaction() as connection:
            jobs.append(await handler.options(connection=connection).enqueue(first=1))
        made = [await forge.jobs.get(job.id) for job in jobs]

    assert given == {"first": 1}
    assert {(job.payload, job.tags) for job in made} == {(b'{"first":1,"second":5}', ("kind:add",))}


async def test_a_job_that_a_plugin_refuses_is_not_there_and_its_caller_hears_why(
    forge: Forge, events: Events
) -> None:
    forge.use(Marks())
    handler = forge.handler(add)
    async with forge:
        with pytest.raises(NotEnqueued, match="13 brings bad luck"):
            await handler.enqueue(first=13)
        with pytest.raises(NotEnqueued, match="bad luck"):
            await handler.enqueue_many([{"first": 1}, {"first": 13}])
        assert events.of(HookFailed) == []
        with pytest.raises(NotEnqueued, match=r"Marks.before_enqueue failed: RuntimeError: it broke"):
            await handler.enqueue(first=14)
        assert await forge.jobs.list() == []

    assert [event.hook for event in events.of(HookFailed)] == ["Marks.before_enqueue"]


async def test_what_a_plugin_makes_of_a_payload_is_checked_as_any_other(forge: Forge) -> None:
    class Spoils(Plugin):
        def before_enqueue(self, job: Draft) -> None:
            job.arguments = {"first": "one"}

    forge.use(Spoils())
    handler = forge.handler(add)
    async with forge:
        with pytest.raises(InvalidPayload, match="first"):
            await handler.enqueue(first=1)


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"kind": "other"}, "kind of the job is 'other', allowed is 'add', of which it was asked for."),
        ({"options": ["tags"]}, r"options of the job are \['tags'\], allowed is a dict by name."),
        ({"meta": None}, "meta of the job are None, allowed is a dict by name."),
        ({"meta": {"word": 1}}, "meta has 'word': 1, allowed are texts."),
        ({"meta": {"word": "\ud800"}}, "meta has half a surrogate pair, allowed is text"),
    ],
    ids=["kind", "options", "meta", "number", "surrogate"],
)
async def test_what_a_plugin_cannot_make_of_a_job_is_said_in_a_sentence(
    forge: Forge, spoilt: dict[str, Any], sentence: str
) -> None:
    class Spoils(Plugin):
        def before_enqueue(self, job: Draft) -> None:
            for name, value in spoilt.items():
                setattr(job, name, value)

    forge.use(Spoils())
    handler = forge.handler(add)
    async with forge:
        with pytest.raises((NotEnqueued, InvalidInput), match=sentence):
            await handler.enqueue(first=1)
        assert await forge.jobs.list() == []


async def test_a_plugin_hears_events_and_one_that_fails_at_them_harms_nobody(
    forge: Forge, events: Events
) -> None:
    heard: list[Event] = []

    class Hears(Plugin):
        def on_event(self, event: Event) -> None:
            heard.append(event)
            if isinstance(event, JobStarted):
                raise RuntimeError("it broke")

    forge.use(Hears())
    job = await one(forge, add, {"first": 1})

    assert result(job) == b"2"
    kinds = [type(event) for event in heard]
    assert [kinds.count(kind) for kind in (WorkerStarted, JobStarted, JobsEnded, WorkerStopped)] == [1] * 4
    assert "Hears.on_event" in events.of(SubscriberFailed)[0].subscriber


async def test_without_plugins_a_runner_calls_the_handlers_themselves(forge: Forge) -> None:
    class Watches(Plugin):
        def on_event(self, event: Event) -> None: ...

    forge.use(Watches())
    forge.handler(add)
    async with forge, working(forge) as worker:
        assert worker.session is not None
        assert worker.session.runners._calls is forge.handlers.by_kind


class Late(Plugin):
    """Stands around a job that the worker waits for."""

    async def around(self, ctx: Context, call: JobCall) -> Any:
        return await call()


async def test_a_job_under_plugins_is_cancelled_as_any_other(forge: Forge) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    forge.use(Late())
    handler = forge.handler(work)
    async with forge, working(forge):
        job = await handler.enqueue()
        await begun.wait()
        await forge.jobs.cancel(job.id)

        async def is_dead() -> bool:
            return (await forge.jobs.get(job.id)).state is State.DEAD

        await eventually(is_dead)


class Misspelt(Plugin):
    """Has a method that nobody calls."""

    async def on_start_up(self, forge: Forge) -> None: ...


class Plain(Plugin):
    """Has a method that cannot be awaited."""

    def around(self, ctx: Context, call: JobCall) -> Any: ...  # type: ignore[override]


class Awaited(Plugin):
    """Has a method that nobody awaits."""

    async def before_enqueue(self, job: Draft) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("plugin", "sentence"),
    [
        (Late, "The plugin is the class Late, allowed is an object of a class below Plugin."),
        (3, "The plugin is 3, allowed is an object of a class below Plugin."),
        (Misspelt(), "Misspelt.on_start_up is no method that is ever called; did you mean on_startup?"),
        (Plain(), "Plain.around is a plain function, allowed is an async function."),
        (Awaited(), "Awaited.before_enqueue is an async function, allowed is a plain function."),
    ],
    ids=["class", "number", "misspelt", "plain", "async"],
)
def test_what_would_never_be_called_is_refused(plugin: Any, sentence: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Forge("sqlite://:memory:").use(plugin)

    assert str(refused.value) == sentence


async def test_a_plugin_is_used_once_and_before_the_forge_is_open(forge: Forge) -> None:
    plugin = Late()
    forge.use(plugin)

    with pytest.raises(InvalidInput, match="in use already"):
        forge.use(plugin)
    async with forge:
        with pytest.raises(InvalidInput, match="before it is opened"):
            forge.use(Late())


def test_a_plugin_hears_of_what_is_enqueued_without_an_event_loop() -> None:
    heard: list[Draft] = []

    class Hears(Plugin):
        def before_enqueue(self, job: Draft) -> None:
            heard.append(job)
            raise NotEnqueued("of the test")

    forge = Forge("sqlite://:memory:")
    forge.use(Hears())
    connection = sqlite3.connect(":memory:")
    with pytest.raises(NotEnqueued, match="of the test"):
        forge.enqueue_sync("add", {"first": 1}, connection=connection, priority=3)
    connection.close()

    assert [(job.kind, job.arguments, job.options) for job in heard] == [
        ("add", {"first": 1}, {"priority": 3})
    ]


class Carries(Plugin):
    """Sends a word along with each job, and reads it."""

    def __init__(self) -> None:
        self.read: list[str | None] = []

    def before_enqueue(self, job: Draft) -> None:
        job.meta["word"] = f"for {job.queue}"

    async def around(self, ctx: Context, call: JobCall) -> Any:
        self.read.append(call.meta.get("word"))
        return await call()


async def test_a_plugin_sends_a_word_along_that_each_attempt_reads(forge: Forge) -> None:
    async def work(ctx: Context) -> None:
        if ctx.attempt == 1:
            raise ValueError("boom")

    plugin = Carries()
    forge.use(plugin)
    async with forge:
        await forge.queues.set("default", backoff_enabled=False)
        await one(forge, work, max_attempts=2)

    assert plugin.read == ["for default", "for default"]


class Sends(Plugin):
    """Stands around what is sent."""

    def __init__(self, notes: list[object], *, fails: str = "") -> None:
        self.notes, self.fails = notes, fails

    async def around_enqueue(self, jobs: Any, call: Any) -> None:
        if self.fails == "before":
            raise RuntimeError("it broke")
        if self.fails != "silently":
            self.notes.append([job.kind for job in jobs])
            self.notes.append([answer.is_new for answer in await call()])
        if self.fails == "after":
            raise RuntimeError("it broke")


async def test_a_plugin_stands_around_what_is_sent_together(forge: Forge) -> None:
    notes: list[object] = []
    forge.use(Sends(notes))
    handler = forge.handler(add)
    async with forge:
        await handler.enqueue(first=1)
        await handler.enqueue_many([{"first": 1}, {"first": 2}])
        await forge.enqueue_batch([handler.job(first=1)])

    assert notes == [["add"], [True], ["add", "add"], [True, True], ["add"], [True]]


async def test_what_a_plugin_sends_twice_is_there_once(forge: Forge) -> None:
    answers: list[object] = []

    class Twice(Plugin):
        async def around_enqueue(self, jobs: Any, call: Any) -> None:
            answers.extend([await call(), await call()])

    forge.use(Twice())
    handler = forge.handler(add)
    async with forge:
        job = await handler.enqueue(first=1)
        assert [one.id for one in await forge.jobs.list()] == [job.id]

    assert answers == [[job], [job]]


@pytest.mark.parametrize("fails", ["before", "silently"])
async def test_what_a_plugin_did_not_send_is_not_there_and_its_caller_hears_that(
    forge: Forge, fails: str
) -> None:
    forge.use(Sends([], fails=fails))
    handler = forge.handler(add)
    async with forge:
        with pytest.raises(NotEnqueued, match=r"Sends.around_enqueue (failed: RuntimeError|did not send it)"):
            await handler.enqueue(first=1)
        assert await forge.jobs.list() == []


async def test_what_was_sent_is_answered_though_the_plugin_fails_after_that(
    forge: Forge, events: Events
) -> None:
    forge.use(Sends([], fails="after"))
    handler = forge.handler(add)
    async with forge:
        job = await handler.enqueue(first=1)
        assert (await forge.jobs.get(job.id)).state is State.PENDING

    assert [event.hook for event in events.of(HookFailed)] == ["Sends.around_enqueue"]

"""Plugin: a class whose methods one overrides. They are called at moments in the life of a forge and of its jobs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge_jobs.codecs.encoded import Payload
from forge_jobs.handlers.context import Context
from forge_jobs.model import meta
from forge_jobs.model.job import Enqueued, NewJob
from forge_jobs.telemetry.events.event import Event

if TYPE_CHECKING:
    from forge_jobs.forge import Forge


class JobCall:
    """The call of a handler, by what stands around it: `await call()` returns what the handler returns."""

    __slots__ = ("_function", "_meta", "arguments")

    def __init__(
        self,
        function: Callable[[dict[str, Any]], Awaitable[Any]],
        arguments: dict[str, Any],
        meta: str | None = None,
    ) -> None:
        self._function, self._meta = function, meta
        self.arguments = arguments  # of the job, of the types that its handler names

    @property
    def meta(self) -> Mapping[str, str]:
        """What plugins sent along when the job was enqueued, by name."""
        return meta.decoded(self._meta)

    async def __call__(self, **instead: Any) -> Any:
        """Call the handler with its arguments, or with others where these say so; return or raise what it does."""
        return await self._function({**self.arguments, **instead} if instead else self.arguments)


@dataclass(slots=True)
class Draft:
    """A job as a program asks for it, before it is checked. A plugin may set its arguments, change its options, and send
    along short texts by name.
    """

    kind: str
    arguments: (
        Payload  # by name; a list for a handler of lists; Encoded where the program has encoded them itself
    )
    options: dict[str, Any] = field(default_factory=dict)  # those that the call says, but for its connection
    meta: dict[str, str] = field(default_factory=dict)
    declared_queue: str | None = None  # of its handler; None: only the database knows it

    @property
    def queue(self) -> str | None:
        """Where it goes; None: where another program says of its kind."""
        return self.options.get("queue") or self.declared_queue


class Plugin:
    """Does something at moments in the life of a forge, of its workers and of their jobs.

    Each method does nothing unless it is overridden, and is called only where it is. `forge.use(plugin)` says that one is
    used. Plugins are called in the order of their use; `around` of the first is the outermost.
    """

    async def on_startup(self, forge: "Forge") -> None:
        """The forge was opened, by a worker or by a program, and nothing has used it. When this raises, it is not open."""

    async def on_shutdown(self, forge: "Forge") -> None:
        """The forge is about to be closed: its workers have ended. It is called where `on_startup` was, the last plugin first,
        and has what is left of the grace; what it raises is said in the log.
        """

    async def around(self, ctx: Context, call: JobCall) -> Any:
        """Run one attempt: `return await call()`. What this returns or raises counts as the handler's.

        What stands before the call happens before the handler, and so on. Without a call the handler does not run:
        the job is done when this returns, and its attempt has failed when it raises; it may raise `Dead`, `Retry`, `Reschedule`
        and `Throttled`. It is told to stop as a handler is.
        """
        return await call()

    def before_enqueue(self, job: Draft) -> None:
        """A job is asked for: change its arguments and its options. It is a plain function, and has to be quick.

        When it raises NotEnqueued, nothing is enqueued, and whoever asked gets that. So it is with any other error,
        which is said in the log.
        """

    async def around_enqueue(
        self, jobs: Sequence[NewJob], call: Callable[[], Awaitable[list[Enqueued]]]
    ) -> None:
        """Send the jobs of one call of the program to the database: `await call()`, which returns its answers.

        When this raises and has not called, nothing is enqueued and the caller gets NotEnqueued; once the jobs are
        enqueued the caller gets their answers, whatever is raised. In `enqueue_sync` nothing else may be awaited.
        """
        await call()

    def on_event(self, event: Event) -> None:
        """Something happened that forge-jobs tells. It is a plain function, and has to be quick; see docs/plugins.md."""

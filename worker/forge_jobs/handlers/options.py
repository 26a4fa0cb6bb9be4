"""The options of a job: what may be set besides its kind and payload."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict
from uuid import UUID

import msgspec

from forge_jobs.codecs.plain import NO_ARGUMENTS
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.batch import Batch
from forge_jobs.handlers.grouping import Grouping, Groups
from forge_jobs.handlers.key_limit import KeyLimit
from forge_jobs.handlers.unique import Unique
from forge_jobs.model.job import FOREVER, KeyMode, NewJob
from forge_jobs.model.kind import Kind, OnLost
from forge_jobs.model.moments import as_duration, as_moment
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.model.time_limit import Limit
from forge_jobs.model.unset import UNSET as UNSET
from forge_jobs.model.unset import Unset as Unset
from forge_jobs.rules import names, tenants, time_limits
from forge_jobs.rules.option_names import unknown_option
from forge_jobs.rules.retries import OnFailure, Retries

if TYPE_CHECKING:
    from forge_jobs.handlers.cron import Crons


class OptionValues(TypedDict, total=False):
    """The options as keyword arguments."""

    queue: str
    delay: timedelta | float
    run_at: datetime
    priority: int  # smaller first
    max_attempts: int | None  # None: for ever
    timeout: timedelta | float | None
    start_by: datetime | timedelta | float  # a moment, or how long after it is due
    deadline: datetime | timedelta | float
    key: str | None
    key_mode: KeyMode | str  # what becomes of the job when another one has the key
    unique: Unique | None
    group: Groups | Callable[..., Groups | None]  # of the arguments
    tenant: str | int | UUID | None  # on whose behalf it is
    tags: Iterable[str]
    connection: Any


class HandlerValues(TypedDict, total=False):
    """What a handler declares, as keyword arguments."""

    kind: str  # default: the function's name
    queue: str
    priority: int
    max_attempts: int | Unset | None
    timeout: timedelta | float | None
    start_by: timedelta | float | None
    deadline: timedelta | float | None
    unique: Unique | None
    group: Groups | Callable[..., Groups | None] | None
    fair_by: str | Callable[..., object] | None  # an argument, or a function of arguments
    tags: Iterable[str] | None
    singleton: bool
    codec: str
    sealed_only: bool  # payloads with a codec that does not seal are refused
    redact: bool | Iterable[str] | None  # True: all arguments and results; or names of arguments
    executor: Literal["thread", "process"] | None
    batch: Batch | None
    limits: KeyLimit | Sequence[KeyLimit]
    slots: int  # of its worker's concurrency
    pin: Literal["version"] | None  # a job that has begun goes on with this version of the program
    retry: Retries | None
    on_failure: OnFailure | None
    on_lost: OnLost | Literal["retry", "refund", "dead"] | None
    cron: "Crons"
    title: str | None
    owner: str | None
    docs: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one job; None or UNSET means not set."""

    queue: str | None = None
    delay: timedelta | None = None
    run_at: datetime | None = None
    priority: int | None = None
    max_attempts: int | Unset | None = UNSET
    timeout: timedelta | None = None
    start_by: Limit | None = None
    deadline: Limit | None = None
    key: str | None = None
    key_mode: KeyMode | None = None
    unique: Unique | None = None
    group: Grouping | None = None
    tenant: str | None = None
    tags: tuple[str, ...] | None = None
    connection: Any = None
    none: frozenset[str] = frozenset()  # of MAY_BE_NONE those that the job has not, whatever its handler says

    @classmethod
    def given(cls, values: OptionValues) -> "Options":
        """Return checked options from keyword arguments. Raises InvalidInput naming what is wrong."""
        if not values:
            return NOTHING_SAID
        for name in values:
            if name not in NAMES:
                raise InvalidInput(unknown_option(name, NAMES, OF_HANDLERS))
        checked_values: dict[str, Any] = dict(values)
        if (
            "connection" in checked_values and checked_values["connection"] is None
        ):  # a mistake, or the job would not be part of it
            raise InvalidInput(
                "connection is None, allowed is the connection of a transaction; leave it out when there is none."
            )
        for name in {"delay", "timeout"} & checked_values.keys():
            checked_values[name] = as_duration(checked_values[name], name)
        for name in {"start_by", "deadline"} & checked_values.keys():
            checked_values[name] = time_limits.limit(checked_values[name], name)
        if checked_values.get("run_at") is not None:
            checked_values["run_at"] = as_moment(checked_values["run_at"], "run_at")
        if "key_mode" in checked_values:
            checked_values["key_mode"] = names.key_mode(checked_values["key_mode"])
        if checked_values.get("group") is not None:
            checked_values["group"] = Grouping.given(checked_values["group"])
        if checked_values.get("tenant") is not None:
            checked_values["tenant"] = tenants.tenant(checked_values["tenant"])
        if "tags" in checked_values:
            checked_values["tags"] = names.tags(checked_values["tags"])
        if none := {name for name in checked_values if name in MAY_BE_NONE and checked_values[name] is None}:
            checked_values["none"] = frozenset(none | SAME if none & SAME else none)
        return cls(**checked_values).checked()

    def checked(self) -> "Options":
        """Return the options. Raises InvalidInput, with one sentence, when one is not allowed."""
        if self.queue is not None:
            names.queue(self.queue)
        if self.priority is not None:
            names.priority(self.priority)
        if self.max_attempts is not UNSET and self.max_attempts is not None:
            names.max_attempts(self.max_attempts)
        if self.key is not None:
            names.key(self.key)
        elif self.key_mode is not None:
            raise InvalidInput("key_mode is given and key is not, allowed is both.")
        if self.unique is not None:
            self._check_unique(self.unique)
        if self.timeout is not None and self.timeout <= timedelta(0):
            raise InvalidInput(f"timeout is {self.timeout}, allowed is more than zero.")
        if self.delay is not None and self.run_at is not None:
            raise InvalidInput("delay and run_at are both given, allowed is one of them.")
        self._check_time_limits()
        return self

    def _check_time_limits(self) -> None:
        if self.start_by is not None or self.deadline is not None:
            delay_ends = None if self.delay is None else datetime.now(UTC) + self.delay
            time_limits.check(self.run_at, delay_ends, self.start_by, self.deadline)

    def _check_unique(self, unique: Unique) -> None:
        if not isinstance(unique, Unique):
            raise InvalidInput(f"unique is {unique!r}, allowed is a Unique.")
        if self.key is not None:
            raise InvalidInput("key and unique are both given, allowed is one of them.")
        for name in ("delay", "run_at"):
            if unique.debounce is not None and getattr(self, name) is not None:
                raise InvalidInput(f"{name} and a debounce are both given, allowed is one of them.")

    def over(self, defaults: "Options") -> "Options":
        """Return these options, with `defaults` for what was not said."""
        if self is NOTHING_SAID:
            return defaults
        options = {name: getattr(self, name) for name in NAMES if self._says(name)}
        if self.key is not None:
            options["unique"] = None  # a key of its own counts for more than what is said of all
        both = replace(defaults._without(self.none) if self.none else defaults, **options, none=self.none)
        if both.unique is not None:
            both._check_unique(both.unique)
        both._check_time_limits()
        return both

    @property
    def unpublished(self) -> "Options":
        """The options of a handler that the row of its kind does not have: only a program with the handler knows them."""
        return Options(key=self.key, unique=self.unique, group=self.group, tags=self.tags)

    def _without(self, names: Iterable[str]) -> "Options":
        said: dict[str, Any] = dict.fromkeys(names)
        return replace(self, **said)

    def unpublished_names(self, *, is_fair: bool) -> tuple[str, ...]:
        """Return which of these decide what runs at once, for a handler that `is_fair` or not, and so must not be forgotten."""
        names = [name for name in ("group", "unique", "key") if self._says(name)]
        return (*names, "tenant") if is_fair else tuple(names)

    def _says(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not UNSET if name == "max_attempts" else value is not None

    def job(self, kind: str, payload: bytes, codec: str, *, declared: bool = False) -> NewJob:
        """Return the job that these options ask for; `declared`: they are all that is said of it."""
        attempts = self.max_attempts
        return NewJob(
            kind=kind,
            payload=payload,
            codec=codec,
            queue=self.queue,
            priority=self.priority,
            max_attempts=None if isinstance(attempts, Unset) else FOREVER if attempts is None else attempts,
            timeout=self.timeout,
            key=self.key,
            key_mode=self.key_mode or KeyMode.DEDUPE,
            delay=self.delay,
            run_at=self.run_at,
            groups=None if self.group is None else self.group.fixed,
            tenant=self.tenant,
            tags=self.tags or (),
            declared=declared,
            start_by=self.start_by,
            deadline=self.deadline,
        )


SAME = frozenset({"key", "unique"})
"""Either makes jobs unique: who says that a job has none of one says it of both."""
MAY_BE_NONE = frozenset({"group", "tenant", *SAME})
"""What a handler says of its jobs, and a call, or a cron, may say that a job has none of, as None."""
NAMES = tuple(field.name for field in fields(Options) if field.name != "none")
OF_HANDLERS = {
    name: f"where the handler is declared: @forge.handler({name}=...)"
    for name in HandlerValues.__annotations__
    if name not in NAMES
}
"""The options that a job cannot have, and where they are said."""
NOTHING_SAID = Options()


def resolved(job: NewJob, kind: Kind | None) -> NewJob:
    """Return the job with what its kind says of it where it says nothing itself; its queue and priority are known then."""
    declared = Kind(job.kind) if kind is None or job.declared else kind
    # What its handler saves and returns is to be sealed, though there is nothing to seal yet.
    is_sealed = declared.sealed and job.payload.strip() == NO_ARGUMENTS
    return msgspec.structs.replace(
        job,
        codec=declared.codec if is_sealed else job.codec,
        payload=NO_ARGUMENTS if is_sealed else job.payload,
        queue=job.queue or declared.queue or DEFAULT_QUEUE,
        priority=(declared.priority or 0) if job.priority is None else job.priority,
        max_attempts=declared.max_attempts if job.max_attempts is None else job.max_attempts,
        timeout=job.timeout or declared.timeout,
        start_by=job.start_by or declared.start_by,
        deadline=job.deadline or declared.deadline,
        most_bytes=job.most_bytes or declared.most_bytes,
    )

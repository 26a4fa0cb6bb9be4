"""What may be said of a cron besides its name, expression and kind."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.options import Options, OptionValues
from forge_jobs.handlers.request import Request, requested_of_cron
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.kind import Kind
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.rules import cron_times, names, time_limits
from forge_jobs.rules.checks import choice, known_options, whole, yes_or_no
from forge_jobs.rules.duration import checked_duration

if TYPE_CHECKING:
    from forge_jobs.handlers.handler import Handler

MOST_MISSED = 10_000
"""The largest `missed_limit`."""

JOB_OPTIONS = (
    "queue",
    "priority",
    "max_attempts",
    "timeout",
    "start_by",
    "deadline",
    "key",
    "key_mode",
    "unique",
    "group",
    "tenant",
    "tags",
)

SAID_ELSEWHERE = {
    "group": ("group", "group=..., or group=() (--group '') for none"),
    "tenant": ("tenant", "tenant=..., or tenant=None (--tenant '') for none"),
    "unique": ("uniqueness", "unique=... or key=..., or key=None (--key '') for none"),
    "key": ("key", "key=..., or key=None (--key '') for none"),
}
"""What a handler says of an option that its kind's row does not have, and how a cron says it instead."""

LIMITS = ("start_by", "deadline")
"""Of these options of a job only durations, since the cron fires again and again."""


class CronValues(OptionValues, total=False):
    """The options of a cron besides its expression and kind; of the job options, JOB_OPTIONS only."""

    payload: Mapping[str, Any] | list[Any] | None  # a list: items
    codec: str
    timezone: str  # an IANA name
    overlap: bool
    missed: Missed | str
    missed_limit: int
    missed_within: timedelta | float | None
    enabled: bool


CRON_OPTIONS = (
    "payload",
    "codec",
    "timezone",
    "overlap",
    "missed",
    "missed_limit",
    "missed_within",
    "enabled",
)


def checked_cron(
    name: str,
    expression: str,
    kind: str,
    values: CronValues,
    handler: "Handler[Any, Any] | None",
    published: Kind | None = None,
) -> CronConfig:
    """Return the cron as `storage` takes it, with what `handler`, that of its kind, says of its jobs where the cron does not.

    Without one it has to say what the handler of another program, that has `published` this of the kind, would.
    Raises InvalidCron, InvalidInput, InvalidPayload.
    """
    known_options(values, (*JOB_OPTIONS, *CRON_OPTIONS), "A cron")
    names.checked_name(name, "cron")
    names.kind(kind)
    if handler is None and published is not None:
        _require_said(kind, values, published.unpublished)
    timezone = values.get("timezone", "UTC")
    _check_schedule(expression, timezone)
    payload, codec = values.get("payload"), values.get("codec", "json")
    payload = {} if payload is None else payload
    if not isinstance(payload, Mapping | list):
        raise InvalidInput(
            f"The payload of cron {name!r} is {payload!r}, allowed is a mapping of argument names, or a list of items."
        )
    options = {option: values[option] for option in JOB_OPTIONS if option in values}  # type: ignore[literal-required]
    limits = {name: time_limits.duration(options.get(name), name) for name in LIMITS}
    missed = choice(values.get("missed", Missed.LATEST), "missed", Missed)
    overlap = yes_or_no(values.get("overlap", True), "overlap")
    request = requested_of_cron(kind, handler, Options.given(options), codec, payload)  # type: ignore[arg-type]
    _check_keys(request, overlap=overlap)
    job = request.job(payload)
    return CronConfig(
        name=name,
        expression=expression,
        kind=kind,
        timezone=timezone,
        payload=job.payload,
        codec=job.codec,
        queue=job.queue or DEFAULT_QUEUE,
        queue_said=job.queue is not None,
        priority=job.priority,
        max_attempts=job.max_attempts,
        timeout=job.timeout,
        start_by=limits["start_by"],
        deadline=limits["deadline"],
        key=job.key,
        key_mode=job.key_mode,
        tags=job.tags,
        groups=job.groups,
        tenant=job.tenant,
        hold=None if job.hold is None else msgspec.json.encode(job.hold).decode(),
        overlap=overlap,
        missed=missed,
        missed_limit=whole(values.get("missed_limit", 100), "missed_limit", least=1, most=MOST_MISSED),
        missed_within=_missed_within(values.get("missed_within"), missed),
        enabled=yes_or_no(values.get("enabled", True), "enabled"),
    )


def _require_said(kind: str, values: CronValues, unpublished: Sequence[str]) -> None:
    """Raise InvalidInput when the cron says nothing of what only a handler that is elsewhere says of its jobs."""
    for option, (what, allowed) in SAID_ELSEWHERE.items():  # others, of a later release, cannot be said here
        instead = "key" if option == "unique" else option
        if option in unpublished and option not in values and instead not in values:
            raise InvalidInput(
                f"The handler of {kind!r} says the {what} of its jobs, and this program does not have it; allowed is {allowed}."
            )


def _check_keys(request: Request, *, overlap: bool) -> None:
    """Raise InvalidInput when a cron cannot say what makes its jobs unique, or says that twice."""
    key = "key" if request.unique is None else "unique"
    if not overlap and (request.unique is not None or request.pattern.key is not None):
        raise InvalidInput(
            f"overlap is false and {key} is given, allowed is one of them: its jobs do not overlap then."
        )
    if request.unique is not None and request.unique.trails:
        raise InvalidInput(
            "unique has a debounce and the job is a cron's, which is not put off; "
            "allowed is edge='leading' with it, or within, or a key of the cron."
        )


def _missed_within(value: timedelta | float | None, missed: Missed) -> timedelta | None:
    if value is None:
        return None
    within = checked_duration(value, "missed_within")
    if not within:
        raise InvalidInput(f"missed_within is {value!r}, allowed is more than 0 s, or None for however old.")
    if missed is Missed.SKIP:
        raise InvalidInput(
            "missed is 'skip' and missed_within is given, allowed is it with 'latest' or 'all'."
        )
    return within


def _check_schedule(expression: str, timezone: str) -> None:
    """The expression can be understood and fires at least once. Raises InvalidCron."""
    cron_times.parse(expression, timezone).next_after(datetime.now(UTC))

"""What handlers declare of a cron, as text: what is new among it, and whether the cron still is as it was declared.

Workers of several releases may run side by side, and say different things. What was never said before is new, and holds at
once. What was said before is what an older release says again, and holds only when nobody says any more what holds now: that is
how it comes back when a release is taken back.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from datetime import datetime

import msgspec

from forge_jobs.errors import InvalidCron
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.worker import WorkerInfo

NOT_DECLARED = (
    "enabled",
    "managed_by",
    "next_fire_at",
    "last_fire_at",
    "last_error",
    "skipped",
    "declared",
    "declared_before",
)
"""The fields of a cron of which a handler says nothing."""

REMEMBERED = 20
"""How many declarations of a cron are known to have been said before."""


@dataclass(frozen=True, slots=True)
class SaidCron:
    """What live workers say of a cron."""

    text: str
    since: datetime  # when the first of them began


def written(config: CronConfig) -> str:
    """Return what a handler says of a cron, as text; what it leaves open is left out, so that a later release writes the same."""
    said = {
        field.name: getattr(config, field.name)
        for field in fields(CronConfig)
        if field.name not in NOT_DECLARED
        and (field.default is MISSING or getattr(config, field.name) != field.default)
    }
    if not config.queue_said:
        said.pop("queue", None)  # it follows the kind
    return msgspec.json.encode(said, order="sorted").decode()


def read(text: str) -> CronConfig:
    """Return the cron of which a handler says this. Raises InvalidCron when a later release wrote it in another way."""
    try:
        return msgspec.json.decode(text, type=CronConfig)
    except msgspec.MsgspecError as error:
        raise InvalidCron(f"What a handler declares cannot be read by this release: {error}.") from error


def said(workers: Iterable[WorkerInfo]) -> dict[str, list[SaidCron]]:
    """Return what those of `workers` that take jobs say of each cron, the newest first."""
    found: dict[str, dict[str, datetime]] = {}
    for worker in workers:
        began = worker.started_at
        if began is None or not worker.serves:
            continue
        for name, text in worker.crons.items():
            texts = found.setdefault(name, {})
            texts[text] = min(began, texts.get(text, began))
    return {
        name: sorted(
            (SaidCron(text, since) for text, since in texts.items()),
            key=lambda one: (one.since, one.text),
            reverse=True,
        )
        for name, texts in found.items()
    }


def new_declaration(present: CronConfig | None, said: Sequence[SaidCron]) -> CronConfig | None:
    """Return the cron as it is to be declared from now on; None: it is.

    Its `declared_before` has all else that was ever said. Raises InvalidCron as `read` does.
    """
    last = None if present is None else present.declared
    before = () if present is None else present.declared_before
    texts = [one.text for one in said]
    unheard = [text for text in texts if text != last and digest(text) not in before]
    if unheard:
        text = unheard[0]
    elif texts and last not in texts:
        text = texts[0]
    else:
        return None
    others = [digest(other) for other in (*reversed(texts), last) if other is not None and other != text]
    kept = [one for one in before if one not in others and one != digest(text)]
    return replace(read(text), declared=text, declared_before=(*kept, *dict.fromkeys(others))[-REMEMBERED:])


def digest(text: str) -> str:
    """Return what is remembered of a declaration."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def origin(config: CronConfig, said: Collection[str]) -> str:
    """Return where a cron comes from, for people; `said` has the crons that live workers declare."""
    if config.managed_by is not None:
        return config.managed_by
    if config.declared is None:
        return "people"
    if config.name not in said:
        return "code of no live worker"
    return "code" if written(config) == config.declared else "code, changed since"

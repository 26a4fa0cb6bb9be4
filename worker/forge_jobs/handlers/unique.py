"""Uniqueness by what a job says: of jobs that say the same, one is enqueued, or one in a while."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from forge_jobs.codecs.plain import decode, encode
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import Arguments
from forge_jobs.model.group import decoded, encoded
from forge_jobs.model.job import Hold, KeyMode, NewJob
from forge_jobs.model.moments import as_duration
from forge_jobs.rules import groups, names

FINGERPRINT = 16  # bytes of a SHA-256: by accident no two of any number of jobs will ever have the same
CONFLICTS = ("return", "raise", "replace")
EDGES = ("leading", "trailing")


@dataclass(frozen=True, slots=True)
class Unique:
    """Which jobs of a kind are the same, and what becomes of the second of them.

    They are the same when the arguments `by` are (a name or names; None: all of them). Without a time that holds
    until the first of them has ended. `within` a time it holds from when the first was enqueued, whether it has ended or not.
    With `debounce` a job starts once for so long no other was enqueued that is the same, but no later than `max_wait`
    after the first, and with what the last one said; with edge="leading" the first starts at once, and the others are
    left out. Times are timedeltas or seconds, by the database's clock.

    With `latest`, while one of them runs one more waits until that has ended, with what the last one said.

    `on_conflict`: "return" answers with the job that is there, "raise" raises NotUnique, and "replace" makes that one, while
    it waits, what was asked for. Raises InvalidInput.
    """

    by: str | tuple[str, ...] | None = None
    within: timedelta | float | None = None
    on_conflict: Literal["return", "raise", "replace"] = "return"
    debounce: timedelta | float | None = None
    max_wait: timedelta | float | None = None
    edge: Literal["leading", "trailing"] | None = None
    latest: bool = False

    def __post_init__(self) -> None:
        by = (self.by,) if isinstance(self.by, str) else self.by
        if by is not None:
            by = tuple(sorted(names.listed(by, "Unique.by")))
            if not by or not all(isinstance(name, str) and name for name in by):
                raise InvalidInput(
                    f"Unique.by is {self.by!r}, allowed are names of arguments, or None for all."
                )
        object.__setattr__(self, "by", by)
        if self.on_conflict not in CONFLICTS:
            raise InvalidInput(
                f"Unique.on_conflict is {self.on_conflict!r}, allowed is one of {', '.join(CONFLICTS)}."
            )
        for name in ("within", "debounce", "max_wait"):
            duration = as_duration(getattr(self, name), f"Unique.{name}")
            if duration is not None and duration <= timedelta(0):
                raise InvalidInput(f"Unique.{name} is {duration}, allowed is more than zero.")
            object.__setattr__(self, name, duration)
        if self.latest:
            self._check_latest()
        if self.debounce is None:
            for name in ("max_wait", "edge"):
                if getattr(self, name) is not None:
                    raise InvalidInput(f"Unique.{name} is given and debounce is not, allowed is both.")
        else:
            self._check_debounce()

    def _check_latest(self) -> None:
        if self.within is not None:
            raise InvalidInput("Unique.within and Unique.latest are both given, allowed is one of them.")
        if self.on_conflict != "return":
            raise InvalidInput(
                f"Unique.on_conflict is {self.on_conflict!r} and latest is given, allowed is 'return' with it."
            )
        if self.edge == "leading":
            raise InvalidInput("Unique.edge is 'leading' and latest is given, allowed is 'trailing' with it.")

    def _check_debounce(self) -> None:
        if self.within is not None:
            raise InvalidInput("Unique.within and Unique.debounce are both given, allowed is one of them.")
        if self.on_conflict != "return":
            raise InvalidInput(
                f"Unique.on_conflict is {self.on_conflict!r} and debounce is given, allowed is 'return' with it."
            )
        if self.edge not in (None, *EDGES):
            raise InvalidInput(f"Unique.edge is {self.edge!r}, allowed is one of {', '.join(EDGES)}.")
        if self.max_wait is not None and self.max_wait < self.debounce:  # type: ignore[operator]  # both are timedeltas
            raise InvalidInput(
                f"Unique.max_wait is {self.max_wait} and debounce is {self.debounce}, allowed is at least that."
            )

    @property
    def trails(self) -> bool:
        """Whether jobs start at the end of a debounce."""
        return self.debounce is not None and self.edge != "leading"

    def applied(self, job: NewJob, defaults: Mapping[str, Any]) -> NewJob:
        """Return the job with what makes it unique; arguments that its payload leaves out have these `defaults`."""
        fingerprint = self._fingerprint(job, defaults)
        raises = self.on_conflict == "raise"
        if self.within is not None:
            mode = KeyMode.REPLACE if self.on_conflict == "replace" else KeyMode.DEDUPE
            return replace(job, hold=Hold(fingerprint, _time(self.within)), key_mode=mode, must_be_new=raises)
        if self.debounce is not None and not self.trails:
            until = None if self.max_wait is None else _time(self.max_wait)
            return replace(job, hold=Hold(fingerprint, _time(self.debounce), extends=True, at_most=until))
        key = f"unique:{fingerprint.hex()}"
        if self.latest:
            job = replace(job, groups=_one_by_one(job, fingerprint), key=key, key_mode=KeyMode.REPLACE)
        if self.debounce is not None:
            longest = None if self.max_wait is None else _time(self.max_wait)
            return replace(
                job, key=key, key_mode=KeyMode.PUT_OFF, delay=_time(self.debounce), max_wait=longest
            )
        if self.latest:
            return job
        mode = KeyMode.REPLACE if self.on_conflict == "replace" else KeyMode.DEDUPE
        return replace(job, key=key, key_mode=mode, must_be_new=raises)

    def _fingerprint(self, job: NewJob, defaults: Mapping[str, Any]) -> bytes:
        said = decode(job.payload, job.codec, of=job.kind)
        if isinstance(said, list):  # the only argument of a handler of lists
            return _fingerprint(said)
        if defaults:
            said = decode(encode(dict(defaults), job.codec), job.codec) | said
        if self.by is not None:
            for name in self.by:
                if name not in said:
                    raise InvalidInput(
                        f"unique names the argument {name!r}, which the payload of {job.kind!r} does not have."
                    )
            said = {name: said[name] for name in self.by}
        return _fingerprint(said)


def _fingerprint(said: Any) -> bytes:
    text = msgspec.json.encode(said, order="sorted", enc_hook=repr)
    return hashlib.sha256(text).digest()[:FINGERPRINT]


def _one_by_one(job: NewJob, fingerprint: bytes) -> str | None:
    """Return the groups of the job with one more, which all have that are the same: one of them runs at a time."""
    of_kind = hashlib.sha256(job.kind.encode() + b"\0" + fingerprint).digest()[:FINGERPRINT]
    return encoded([*decoded(job.groups).values(), groups.of_unique(of_kind)])


def require_arguments(unique: Unique, kind: str, arguments: Arguments) -> None:
    """Raise InvalidInput when the handler of `kind` does not have an argument that is named."""
    for name in unique.by or ():
        if not arguments.takes(name):
            raise InvalidInput(
                f"unique names the argument {name!r}, which {kind} does not have; "
                f"it takes {', '.join(arguments.names) or 'nothing'}."
            )


def _time(duration: timedelta | float) -> timedelta:
    return duration if isinstance(duration, timedelta) else timedelta(seconds=duration)

"""How failed attempts are followed by others, as far as a handler says it. Pure."""

import copy
import inspect
import math
import random as _random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.decision import Dead, Decision, Reschedule, Retry, Throttled
from forge_jobs.model.error_text import describe, sentence
from forge_jobs.model.moments import as_duration
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.unset import UNSET, Unset
from forge_jobs.rules import backoff, names

Answer = Decision | type[Decision]
"""What becomes of a job whose attempt failed: Dead, Retry, Reschedule or Throttled, or an object of one of these."""

OnFailure = Callable[[BaseException, int], Answer | None]
"""Called with the error and the number of the attempt; returns the answer, or None for what would be otherwise."""

ANSWERS = (Dead, Retry, Reschedule, Throttled)
ALLOWED = "Dead, Retry, Reschedule or Throttled, or an object of one of these"


@dataclass(frozen=True, slots=True)
class Retries:
    """How failed attempts of a handler's jobs are followed by others; what is not said is as their queue says.

    `attempts` is how many a job has (None: for ever). It waits for `base`, doubled with each attempt, at most `max` (seconds
    or timedeltas), give or take the share `jitter` of it (0 to 1). `on` says what becomes of jobs that fail with errors of
    these classes, the most special one first, and `on_failure` says it before that. An attempt, not the first one, that ran
    for more than `reset` times the backoff before it counts as a first one. After `warn` failed attempts a
    further one is logged as an error, and no longer as a warning. Raises InvalidInput.
    """

    base: timedelta | float | None = None
    max: timedelta | float | None = None
    jitter: float | None = None
    attempts: int | Unset | None = UNSET
    on: Mapping[type[BaseException], Answer] = field(default_factory=dict)
    on_failure: OnFailure | None = None
    reset: float | None = None
    warn: int | None = None

    def __post_init__(self) -> None:
        for name in ("base", "max"):
            object.__setattr__(self, name, as_duration(getattr(self, name), f"Retries.{name}"))
        if self.attempts is not UNSET:
            names.max_attempts(self.attempts)
        if self.jitter is not None and not (_is_number(self.jitter) and 0 <= self.jitter <= 1):
            raise InvalidInput(f"Retries.jitter is {self.jitter!r}, allowed is a number from 0 to 1.")
        if self.reset is not None and not (_is_number(self.reset) and self.reset > 0):
            raise InvalidInput(f"Retries.reset is {self.reset!r}, allowed is a number of more than 0.")
        if self.warn is not None and (type(self.warn) is not int or self.warn < 0):
            raise InvalidInput(f"Retries.warn is {self.warn!r}, allowed is a whole number of 0 or more.")
        self._check_answers()

    def _check_answers(self) -> None:
        if not isinstance(self.on, Mapping):
            raise InvalidInput(f"Retries.on is {self.on!r}, allowed is a mapping of exception classes.")
        for error, answer in self.on.items():
            if not (isinstance(error, type) and issubclass(error, BaseException)):
                raise InvalidInput(f"Retries.on names {error!r}, allowed are exception classes.")
            if not _is_answer(answer):
                raise InvalidInput(f"Retries.on says {answer!r} for {error.__name__}, allowed is {ALLOWED}.")
            try:
                _with_reason(answer, "")
            except BaseException as problem:
                raise InvalidInput(
                    f"Retries.on says {answer!r} for {error.__name__}, which raises {sentence(problem)}; "
                    "allowed are classes that can be called without arguments."
                ) from problem
        if self.on_failure is None:
            return
        if not callable(self.on_failure) or inspect.iscoroutinefunction(self.on_failure):
            raise InvalidInput(
                f"on_failure is {self.on_failure!r}, allowed is a function of the error and the attempt that is not async."
            )
        try:
            inspect.signature(self.on_failure).bind(None, None)
        except TypeError:
            raise InvalidInput(
                f"on_failure takes {inspect.signature(self.on_failure)}, allowed are the error and the attempt."
            ) from None
        except ValueError:  # it has no signature that can be read
            pass

    def of_timeout(self) -> "Retries":
        """Return the same for an attempt that timed out: it did not run well, so it never counts as a first one."""
        return self if self.reset is None else replace(self, reset=None)

    @property
    def answers_timeouts(self) -> bool:
        """Whether it says itself what becomes of a job whose attempt timed out, also after the last one."""
        return self.on_failure is not None or any(kind in self.on for kind in TimeoutError.__mro__)

    @property
    def asks(self) -> bool:
        """Whether `on` or `on_failure` has to know the error of an attempt."""
        return bool(self.on) or self.on_failure is not None

    def wait(
        self, queue: QueueConfig, attempt: int, *, random: Callable[[], float] = _random.random
    ) -> timedelta:
        """Return how long a job waits after this attempt failed. `random` gives [0, 1)."""
        jitter = backoff.JITTER if self.jitter is None else self.jitter
        return backoff.retry_delay(self._over(queue), attempt, jitter=jitter, random=random)

    def counts_as(self, queue: QueueConfig, attempt: int, duration: float) -> int:
        """Return the number by which an attempt counts that ran for so many seconds: its own, or 1."""
        if self.reset is None or attempt <= 1:
            return attempt
        waited = backoff.retry_delay(self._over(queue), attempt - 1, jitter=0)
        return 1 if waited and duration > self.reset * waited.total_seconds() else attempt

    def is_grave(self, attempt: int) -> bool:
        """Whether the failure of this attempt is more than a warning."""
        return self.warn is not None and attempt > self.warn

    def answer(self, error: BaseException, attempt: int) -> tuple[Decision | None, str]:
        """Return what becomes of a job whose attempt failed with `error`, None for what would be otherwise; and the error as text."""
        text = describe(error)
        answer: object = None
        if self.on_failure is not None:
            try:
                answer = self.on_failure(error, attempt)
            except BaseException as another:
                return None, f"{text}\non_failure raised {describe(another)}"
            if answer is not None and not _is_answer(answer):
                return None, f"{text}\non_failure returned {names.shown(answer)}, allowed is {ALLOWED}."
        if answer is None:
            answer = next((self.on[kind] for kind in type(error).__mro__ if kind in self.on), None)
        try:
            return (None if answer is None else _with_reason(answer, text)), text
        except BaseException as another:
            return None, f"{text}\n{names.shown(answer)} raised {describe(another)}"

    def _over(self, queue: QueueConfig) -> QueueConfig:
        """Return what the queue says, changed by what is said here."""
        if self.base is None and self.max is None:
            return queue
        base = _given(self.base, queue.backoff_base)
        longest = queue.backoff_max if self.base is None else max(base, queue.backoff_max)
        return replace(
            queue,
            backoff_enabled=queue.backoff_enabled or self.base is not None,
            backoff_base=base,
            backoff_max=_given(self.max, longest),
        )


AS_QUEUE = Retries()
"""Nothing is said: all is as the queue says."""


def _given(said: timedelta | float | None, otherwise: timedelta) -> timedelta:
    return said if isinstance(said, timedelta) else otherwise  # what is said was made one at the beginning


def said_by(retry: object, on_failure: OnFailure | None, kind: str) -> Retries:
    """Return what the handler of a kind says by these two options. Raises InvalidInput."""
    if retry is not None and not isinstance(retry, Retries):
        raise InvalidInput(f"retry of handler {kind!r} is {retry!r}, allowed is a Retries.")
    said = AS_QUEUE if retry is None else retry
    if on_failure is None:
        return said
    if said.on_failure is not None:
        raise InvalidInput("on_failure and Retries.on_failure are both given, allowed is one of them.")
    return replace(said, on_failure=on_failure)


def _is_answer(answer: object) -> bool:
    return isinstance(answer, ANSWERS) or (isinstance(answer, type) and issubclass(answer, ANSWERS))


def _with_reason(answer: object, text: str) -> Decision:
    """Return the decision that the answer means, with the error as its reason, after the one that it has."""
    made: Decision = answer() if isinstance(answer, type) else copy.copy(answer)  # type: ignore[assignment]
    own = getattr(made, "reason", None)
    if own is not None:
        made.reason = text if own in _UNSAID else f"{own}: {text}"  # type: ignore[attr-defined]
    return made


_UNSAID = frozenset(kind().reason for kind in (Dead, Retry, Throttled))
"""The reasons of decisions that were given none."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

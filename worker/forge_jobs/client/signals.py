"""Signals, as a program sends them: to a job, to the job of a key, to all jobs with a tag, or by a callback token."""

from collections.abc import Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, overload

from msgspec.structs import replace

from forge_jobs.client.acting import who_is_named
from forge_jobs.codecs.bound import signal_to
from forge_jobs.codecs.plain import encode, hides
from forge_jobs.errors import ClaimLost, InvalidInput, SignalRefused
from forge_jobs.handlers.context import answered
from forge_jobs.model.job import Claim, Enqueued
from forge_jobs.model.moments import as_duration
from forge_jobs.model.signal import (
    LARGEST_VALUE,
    MOST_KEPT,
    MOST_SIGNALS,
    Callback,
    NewSignal,
    Recipient,
    Signalled,
    SignalMode,
)
from forge_jobs.rules import names
from forge_jobs.rules.checks import choice

if TYPE_CHECKING:
    from forge_jobs.settings.environment import Settings
    from forge_jobs.storage.interface.storage import Storage

TOGETHER = 1_000
"""To how many jobs with a tag a signal is sent in one transaction."""

Mode = SignalMode | str


class Signaller:
    """What a Forge does to send signals."""

    @property
    def settings(self) -> "Settings":
        """Overwritten by Forge."""
        raise NotImplementedError

    @property
    def storage(self) -> "Storage":
        """Overwritten by Forge."""
        raise NotImplementedError

    @overload
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        tag: str,
        kind: str | None = None,
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Coroutine[Any, Any, dict[int, Signalled]]: ...
    @overload
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        job: int | Enqueued[Any],
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Coroutine[Any, Any, Signalled]: ...
    @overload
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        key: str,
        kind: str,
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Coroutine[Any, Any, Signalled]: ...
    def signal(
        self,
        name: str,
        value: Any = None,
        *,
        job: int | Enqueued[Any] | None = None,
        kind: str | None = None,
        key: str | None = None,
        tag: str | None = None,
        mode: Mode = SignalMode.FIRST,
        connection: Any = None,
    ) -> Coroutine[Any, Any, Any]:
        """Send the signal, and return what became of it; to be awaited, as `enqueue`.

        It goes to one `job`, or to the living one of a `kind` with this `key`, or to all living ones with the `tag`, of one kind or
        of all: then the answers are returned by the ids of the jobs. A job that waits for it goes on, and any other one has it
        when it comes to a wait for it. Of several with one name the first counts, unless the `mode` is "append". With `connection` it
        is sent once that transaction commits. Raises InvalidInput, InvalidPayload, and SignalRefused when a job has as many as it may.
        """
        work = self._signal(name, value, job, kind, key, tag, mode, connection)
        return answered(self, work, "forge.signal", connection)  # type: ignore[arg-type]  # it is a Forge

    def callback_token(
        self,
        job: int | Enqueued[Any],
        signal: str,
        *,
        expires: timedelta | float,
        use: str | None = None,
        connection: Any = None,
    ) -> Coroutine[Any, Any, str]:
        """Return a text by which somebody who has nothing else may send this signal to the job, once, within this time; to be awaited.

        Of tokens of a job with the same `use`, which is the name of the signal unless given, only one sends, and none once another
        job has taken its place. It is signed with the first of FORGE_CALLBACK_SECRETS. For a job of a transaction that is not
        committed yet, its `connection` is needed. Raises InvalidInput.
        """
        work = self._callback_token(names.job_id(job), signal, expires, use, connection=connection)
        return answered(self, work, "forge.callback_token", connection)  # type: ignore[arg-type]

    def read_callback(self, token: str) -> Coroutine[Any, Any, Callback]:
        """Return what a callback token is for; to be awaited. It may have been used. Raises InvalidToken when it is not ours, is for
        a job of another database, or has expired.
        """
        return answered(self, self._read_callback(token), "forge.read_callback")  # type: ignore[arg-type]

    def signal_by_token(
        self, token: str, value: Any = None, *, connection: Any = None
    ) -> Coroutine[Any, Any, Signalled]:
        """Send the signal for which the callback token is; to be awaited. See `signal`. Raises InvalidToken also."""
        work = self._signal_by_token(token, value, connection)
        return answered(self, work, "forge.signal_by_token", connection)  # type: ignore[arg-type]

    async def _signal(
        self,
        name: str,
        value: Any,
        job: int | Enqueued[Any] | None,
        kind: str | None,
        key: str | None,
        tag: str | None,
        mode: Mode,
        connection: Any,
    ) -> Signalled | dict[int, Signalled]:
        signal = NewSignal(names.signal(name), _encoded(name, value), mode=choice(mode, "mode", SignalMode))
        to = _recipient(job, kind, key, tag)
        if to.tag is None:
            return await self._sent_to_one(to, signal, value, connection)
        codecs = await self._codecs(to, signal, connection)
        if set(codecs.values()) <= {signal.codec}:
            return await self._sent_to_all(to, signal, connection)
        answers: dict[int, Signalled] = {}
        for of_kind, codec in sorted(codecs.items()):
            answers |= await self._sent_to_all(
                replace(to, kind=of_kind), _written(signal, value, codec, of_kind), connection
            )
        return dict(sorted(answers.items()))

    async def _codecs(self, to: Recipient, signal: NewSignal, connection: Any) -> dict[str, str]:
        """Return with which codec the value of the signal is written, by the kinds of the jobs that it is sent to: sealed as their payloads are."""
        if signal.value is None:
            return {}
        codecs: dict[str, str] = {}
        for kind, of_job, of_kind in await self.storage.signals.codecs(to, connection=connection):
            sealed = of_kind or (of_job if hides(of_job) else None)
            codecs[kind] = sealed or codecs.get(kind, signal.codec)
        return codecs

    async def _sent_to_all(self, to: Recipient, signal: NewSignal, connection: Any) -> dict[int, Signalled]:
        """Send the signal to the jobs with the tag, and return what became of it by their ids."""
        answers: dict[int, Signalled] = {}
        while True:
            most = TOGETHER if connection is None else None
            page = Recipient(kind=to.kind, tag=to.tag, after=max(answers, default=0), most=most)
            sent = await self.storage.signals.send(page, signal, connection=connection, by=who_is_named())
            answers.update({job_id: answer for job_id, answer in sent if job_id is not None})
            if most is None or len(sent) < most:
                return answers

    async def _sent_to_one(self, to: Recipient, signal: NewSignal, value: Any, connection: Any) -> Signalled:
        for of_kind, codec in (await self._codecs(to, signal, connection)).items():
            signal = _written(signal, value, codec, of_kind)
        [(job_id, answer)] = await self.storage.signals.send(
            to, signal, connection=connection, by=who_is_named()
        )
        if answer is Signalled.FULL:
            raise SignalRefused(job_id or 0, signal.name, MOST_SIGNALS, MOST_KEPT)
        return answer

    async def _callback_token(
        self,
        job_id: int,
        signal: str,
        expires: timedelta | float,
        use: str | None,
        *,
        claim: Claim | None = None,
        connection: Any = None,
    ) -> str:
        time = as_duration(expires, "expires")
        if time is None:
            raise InvalidInput("expires is None, allowed is a timedelta or seconds.")
        label = names.signal(signal) if use is None else names.signal(use)
        facts = await self.storage.signals.token_facts(job_id, claim=claim, connection=connection)
        if facts is None:
            assert claim is not None
            raise ClaimLost(claim.job_id, claim.attempt)
        callback = Callback(job_id, names.signal(signal), label, facts.now + time, facts.replaced)
        from forge_jobs.rules import callback_tokens  # late, with hmac: few programs have tokens

        return callback_tokens.made(callback, facts.origin, self.settings.callback_secrets)

    async def _read_callback(self, token: str, connection: Any = None) -> Callback:
        facts = await self.storage.signals.token_facts(connection=connection)
        assert facts is not None
        from forge_jobs.rules import callback_tokens

        return callback_tokens.read(token, self.settings.callback_secrets, facts)

    async def _signal_by_token(self, token: str, value: Any, connection: Any) -> Signalled:
        callback = await self._read_callback(token, connection)
        # A use of its own is one signal more; the common one of the signal is the same as what others send by its name.
        mode = SignalMode.FIRST if callback.use == callback.signal else SignalMode.APPEND
        signal = NewSignal(
            callback.signal,
            _encoded(callback.signal, value),
            mode=mode,
            token=callback.use,
            of_replaced=callback.of_replaced,
        )
        return await self._sent_to_one(Recipient(callback.job_id), signal, value, connection)


def _written(signal: NewSignal, value: Any, codec: str, kind: str) -> NewSignal:
    """Return the signal with its value written by this codec, for jobs of this kind."""
    if codec == signal.codec:
        return signal
    return replace(
        signal, value=_encoded(signal.name, value, codec, of=signal_to(kind, signal.name)), codec=codec
    )


def _encoded(name: str, value: Any, codec: str = "json", *, of: str = "") -> bytes | None:
    if value is None:
        return None
    return encode(value, codec, limit=LARGEST_VALUE, what=f"value of signal {name!r}", of=of)


def _recipient(
    job: int | Enqueued[Any] | None, kind: str | None, key: str | None, tag: str | None
) -> Recipient:
    given = [name for name, value in (("job", job), ("key", key), ("tag", tag)) if value is not None]
    if len(given) != 1:
        raise InvalidInput(
            f"A signal is sent to {' and '.join(given) or 'nobody'}, allowed is exactly one of job, key and tag."
        )
    if job is not None:
        if kind is not None:
            raise InvalidInput("A signal is sent to a job and a kind, allowed is a kind with a key or a tag.")
        return Recipient(names.job_id(job))
    if tag is not None:
        return Recipient(kind=None if kind is None else names.kind(kind), tag=names.tag(tag))
    if kind is None:
        raise InvalidInput("A signal is sent to a key of no kind, allowed is kind= beside key=.")
    return Recipient(kind=names.kind(kind), key=names.key(key))

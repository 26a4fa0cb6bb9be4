"""`forge.sync.operations`: what `forge.operations` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Callable, Iterable, Sequence

from forge_jobs.client.operations import Operations
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import Operation
from forge_jobs.sync.noun import SyncNoun


class SyncOperations(SyncNoun[Operations]):
    """The bulk operations of a database. Reached as `forge.sync.operations`."""

    def start(
        self,
        move: Move | str,
        *,
        state: State | str | Sequence[State | str] | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        into: str | None = None,
        priority: int | None = None,
        rate: float | None = None,
        by: str | None = None,
    ) -> Operation:
        """All jobs that match now are going to be `cancelled`, `retried`, `deleted`, `moved` into a queue or
        `reprioritised`; return the operation, of which no step is made yet.

        It is worked off by `finish`, and by the leader of the workers. `state` is one or several of the states that `move`
        allows, None: all of them, but only the dead to retry, and the waiting to move; to delete jobs it has to be said.
        With `rate` so many jobs a second at most. `by` says who asks (default: the user and the host). Raises
        InvalidInput, UnknownQueue.
        """
        return self._do(
            self._noun.start(
                move,
                state=state,
                queue=queue,
                kind=kind,
                key=key,
                group=group,
                tags=tags,
                into=into,
                priority=priority,
                rate=rate,
                by=by,
            )
        )

    def get(self, operation_id: int) -> Operation:
        """Return the operation, and how far it is. Raises UnknownOperation, InvalidInput."""
        return self._do(self._noun.get(operation_id))

    def list(self, *, limit: int = 100) -> Sequence[Operation]:
        """Return operations, the newest first. Those that ended long ago are forgotten. Raises InvalidInput."""
        return self._do(self._noun.list(limit=limit))

    def cancel(self, operation_id: int) -> bool:
        """No further step is made; what was done stays done. False: it had ended. Raises UnknownOperation, InvalidInput."""
        return self._do(self._noun.cancel(operation_id))

    def finish(
        self, operation_id: int, *, progress: Callable[[Operation], object] | None = None
    ) -> Operation:
        """Return the operation when it has ended; its steps are made here unless somebody else makes them.

        `progress` is told after each. If this is interrupted, the leader of the workers goes on. Raises
        UnknownOperation, InvalidInput, and KeyBusy when another transaction has a key and does not end: then the operation
        is cancelled.
        """
        return self._do(self._noun.finish(operation_id, progress=progress))

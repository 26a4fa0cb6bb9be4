"""Routes: which queue the jobs of a kind go to where neither the call nor the handler says."""

from collections.abc import Callable

from forge_jobs.errors import InvalidInput
from forge_jobs.rules import names

Route = Callable[[str], str | None]
"""Returns the queue of a kind; None: it does not say."""


class Routes:
    """The routes of a program. They are asked in their order, and the first that answers counts."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, str] | Route] = []

    def __bool__(self) -> bool:
        return bool(self._routes)

    def add_prefix(self, prefix: object, queue: object) -> None:
        """Jobs of kinds that begin with `prefix` go to `queue`. Raises InvalidInput."""
        self._routes.append((names.checked_name(prefix, "prefix"), names.queue(queue)))

    def add(self, route: Route) -> None:
        """Jobs go to the queue that the function returns for their kind."""
        self._routes.append(route)

    def queue_of(self, kind: str) -> str | None:
        """Return the queue of a kind; None: no route says. Raises InvalidInput when one says what is no queue."""
        for route in self._routes:
            if not callable(route):
                if kind.startswith(route[0]):
                    return route[1]
            elif (queue := route(kind)) is not None:
                try:
                    return names.queue(queue)
                except InvalidInput as error:
                    raise InvalidInput(f"The route of kind {kind!r} is wrong: {error}") from None
        return None

    def queues(self) -> set[str]:
        """Return the queues that they name, but for those that only a function knows."""
        return {route[1] for route in self._routes if not callable(route)}

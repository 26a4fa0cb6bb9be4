"""Lists of the admin whose rows come from `forge.sync`: it finds them by its indexes, and counts no table of jobs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from django.contrib import messages
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import Error
from django.http import QueryDict

from forge_jobs.errors import ForgeError, JobNotFound
from forge_jobs.integrations.django.models import Job, Queue, databases, shown_backend
from forge_jobs.model.job import State
from forge_jobs.rules.checks import MAX_ID
from forge_jobs.rules.words import first_line

SHOWN = 100
"""How many jobs are on a page."""

LOOKED_AT = 100_000
"""Among so many jobs, the newest, a key is looked for."""

BACKEND = "backend"
"""The parameter of a page that says of which backend it is."""

BEFORE = "before"
"""The parameter of a page: it begins below the job with this id."""


def backend_of(request: Any) -> str | None:
    """Return the backend that a page is of, as its address says, or that of the list it came from; None: the first one."""
    of_list = QueryDict(request.GET.get("_changelist_filters"))
    return request.GET.get(BACKEND) or of_list.get(BACKEND) or None


def of_backend(alias: str | None) -> dict[str, str]:
    """Return what an address says, so that its page is of this backend."""
    return {} if alias is None else {BACKEND: alias}


class Chosen(SimpleListFilter):  # type: ignore[misc]  # which has no types here
    """A filter that the list itself applies."""

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Return it as it is."""
        return queryset


class OfBackend(Chosen):
    """Which database the jobs are in, where several of TASKS have some."""

    title, parameter_name = "backend", BACKEND

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return the backends that share no database with an earlier one, but for the first, which is shown by itself."""
        return [(alias, ", ".join(aliases)) for alias, aliases in databases().items()][1:]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        """Yield them, the first one as what is shown when none is chosen."""
        nothing, *others = super().choices(changelist)
        yield {**nothing, "display": ", ".join(next(iter(databases().values())))}
        yield from others


class OfState(Chosen):
    """Which state jobs are in."""

    title, parameter_name = "state", "state"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return all states."""
        return [(state.value, state.value.replace("_", " ")) for state in State]


class OfQueue(Chosen):
    """Which queue jobs are in."""

    title, parameter_name = "queue", "queue"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return all queues."""
        return _named(lambda: (queue.name for queue in shown_backend().opened().queues.list()))


class OfKind(Chosen):
    """Which kind jobs are of."""

    title, parameter_name = "kind", "kind"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return the kinds that programs have handlers for."""
        return _named(lambda: (kind.kind for kind in shown_backend().opened().kinds.list()))


class WithTag(Chosen):
    """Which tag jobs have: the one that was clicked in the list."""

    title, parameter_name = "tag", "tag"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        """Return the chosen tag."""
        tag = request.GET.get("tag")
        return [(tag, tag)] if tag else []


class RowsOfOurs(ChangeList):  # type: ignore[misc]  # which has no types here
    """A list of rows that `rows` returns, whatever the queryset is."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.title = str(self.opts.verbose_name_plural).capitalize()

    more: int | None = None  # the id before which the next page begins; None: this is the last one

    def rows(self, request: Any) -> Sequence[Any]:
        """Return the rows of this page. Raises ForgeError."""
        raise NotImplementedError

    def get_results(self, request: Any) -> None:
        """The rows are known; what is wrong with the request, or with the database, is said above them."""
        try:
            self.result_list = list(self.rows(request))
            for row in self.result_list:
                row.backend = backend_of(request)
        except (ForgeError, Error) as error:
            messages.error(request, first_line(str(error)))
            self.result_list = []
        self.result_count = self.full_result_count = len(self.result_list)
        self.show_full_result_count, self.show_admin_actions = False, bool(self.result_list)
        self.can_show_all, self.multi_page = True, False
        self.paginator = Paginator(self.result_list, max(1, self.result_count))


class JobRows(RowsOfOurs):
    """Jobs, newest first."""

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        """Return what filters and searches."""
        chosen: dict[str, Any] = super().get_filters_params(params)
        chosen.pop(BEFORE, None)
        return chosen

    def rows(self, request: Any) -> Sequence[Any]:
        """Return the jobs that match, with the rest of them on later pages."""
        before = str(request.GET.get(BEFORE, ""))
        below = int(before) if before.isascii() and before.isdecimal() and 0 < int(before) <= MAX_ID else None
        chosen = {name: request.GET.get(name) or None for name in ("state", "queue", "kind")}
        tags = [tag] if (tag := request.GET.get("tag")) else []
        if self.query:
            found = list(_found(self.query.strip(), below))
            rows = [row for row in found if _matches(row, chosen, tags)]
            messages.info(request, f"Keys were looked for in the newest {LOOKED_AT:,} jobs.")
        else:
            jobs = shown_backend().opened().jobs.list(**chosen, tags=tags, limit=SHOWN + 1, before=below)
            rows = [Job.of(job) for job in jobs]
        self.more = rows[SHOWN - 1].pk if len(rows) > SHOWN else None
        return rows[:SHOWN]


class QueueRows(RowsOfOurs):
    """All queues, with how many jobs are in each state."""

    def rows(self, request: Any) -> Sequence[Any]:
        """Return the queues by name."""
        sync = shown_backend().opened()
        counts = {count.queue: count for count in sync.jobs.counts()}
        rows = [Queue.of(queue) for queue in sync.queues.list()]
        for row in rows:
            row.counts = counts.get(row.name)
        return rows


def _named(names: Callable[[], Iterable[str]]) -> list[tuple[str, str]]:
    """Return the choices of a filter; none while the database is away, which the list says."""
    try:
        return [(name, name) for name in names()]
    except ForgeError:
        return []


def _found(term: str, below: int | None) -> Iterable[Any]:
    """Yield the job with this id, and jobs with this key."""
    jobs = shown_backend().opened().jobs
    if below is None and term.isascii() and term.isdecimal() and 0 < int(term) <= MAX_ID:
        try:
            yield Job.of(jobs.get(int(term)))
        except JobNotFound:
            pass
    newest = next((job.id for job in jobs.list(limit=1)), 0)
    with_key = Job.objects.filter(key=term, pk__gt=newest - LOOKED_AT)
    yield from (with_key if below is None else with_key.filter(pk__lt=below)).order_by("-pk")[: SHOWN + 1]


def _matches(row: Any, chosen: dict[str, str | None], tags: Sequence[str]) -> bool:
    return set(tags) <= set(row.tags) and all(
        value is None or getattr(row, name) == value for name, value in chosen.items()
    )

"""Jobs and queues in Django's admin. To see them needs the permission `view`, to move them or to pause a queue `change`."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode

from forge_jobs.client.acting import acting_as, as_a_name
from forge_jobs.errors import ForgeError, InvalidInput, JobNotFound, UnknownQueue
from forge_jobs.integrations.django.changelist import (
    JobRows,
    OfBackend,
    OfKind,
    OfQueue,
    OfState,
    QueueRows,
    WithTag,
    backend_of,
    of_backend,
)
from forge_jobs.integrations.django.models import Job, Queue, showing, shown_backend
from forge_jobs.integrations.django.moves import Move, cancel, pause, resume, retry, run_now
from forge_jobs.integrations.django.pages import (
    attempts_of,
    buttons,
    card,
    from_now,
    status_of,
    written,
)
from forge_jobs.rules import names
from forge_jobs.rules.checks import MAX_ID
from forge_jobs.rules.words import first_line

NOT_THERE = (JobNotFound, UnknownQueue, InvalidInput)


class Shown(admin.ModelAdmin):  # type: ignore[misc]  # which has no types here
    """What is looked at here and moved by `forge.sync`, never written by Django."""

    moves: dict[str, Move]
    detail: str  # its template
    actions_selection_counter = True
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # which count jobs one by one
    sortable_by = ()
    list_per_page = list_max_show_all = 10_000  # the lists have pages of their own

    def has_add_permission(self, request: Any) -> bool:
        """Return False: jobs are enqueued, and queues made, by programs."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Return False: that is for the command line."""
        return False

    def name_of(self, row: Any) -> str:
        """Return what the row is called in a sentence."""
        raise NotImplementedError

    def facts(self, name: str) -> dict[str, Any]:
        """Return what the page of one row shows. Raises ForgeError."""
        raise NotImplementedError

    def key_of(self, name: str) -> Any:
        """Return what is written so in a page as the key of a row. Raises InvalidInput."""
        raise NotImplementedError

    def do(self, request: Any, move: Move, row: Any) -> None:
        """The row is moved, or it is said why not; Django's log has it, and so has the history of what was done by hand."""
        who = as_a_name(request.user.get_username())
        try:
            with acting_as(who):
                became = move(row.pk)
        except ForgeError as error:
            messages.error(request, str(error))
            return
        said = f"{self.name_of(row)} {became}."
        messages.success(request, said[0].upper() + said[1:])
        chosen = backend_of(request)
        self.log_change(request, row, said if chosen is None else f"{said} (backend {chosen})")

    def do_all(self, request: Any, move: Move) -> None:
        """Those that were chosen in the list are moved."""
        for name in request.POST.getlist(ACTION_CHECKBOX_NAME):
            self.do(request, move, self.model(pk=self.key_of(name)))

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Return the list of the backend that the page is of, or do what was chosen there."""
        with showing(backend_of(request)):
            try:
                shown_backend()
            except InvalidInput as error:
                messages.error(request, str(error))
                return HttpResponseRedirect(request.path)
            try:
                for name in request.POST.getlist(ACTION_CHECKBOX_NAME):
                    self.key_of(name)
            except InvalidInput as error:  # which no page of ours sends
                messages.error(request, str(error))
                return HttpResponseRedirect(request.get_full_path())
            return super().changelist_view(request, extra_context)

    def history_view(self, request: Any, object_id: str, extra_context: Any = None) -> Any:
        """Return what was done to the row here."""
        with showing(backend_of(request)):
            try:
                return super().history_view(request, object_id, extra_context)
            except ForgeError as error:
                return self._refused(request, error)

    def get_object(self, request: Any, object_id: str, from_field: Any = None) -> Any:
        """Return the row; None when there is none, or nobody can see."""
        try:
            return self.facts(object_id)["original"]
        except NOT_THERE:
            return None

    def change_view(self, request: Any, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        """Return the page of one row, which also moves it."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        with showing(backend_of(request)):
            return self._page(request, object_id, extra_context)

    def _page(self, request: Any, object_id: str, extra_context: Any) -> Any:
        try:
            facts = self.facts(unquote(object_id))
        except NOT_THERE as error:
            raise Http404(str(error)) from error
        except ForgeError as error:
            return self._refused(request, error)
        if request.method == "POST":
            move = self.asked(request)
            if move is None or not self.has_change_permission(request):
                raise PermissionDenied
            self.do(request, move, facts["original"])
            return HttpResponseRedirect(request.get_full_path())
        context = {
            **self.admin_site.each_context(request),
            "title": str(facts["original"]),
            "opts": self.opts,
            "media": self.media,
            "has_view_permission": True,
            "is_popup": False,
            "may_change": self.has_change_permission(request),
            "history_url": with_backend(
                request,
                reverse(
                    f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_history",
                    args=[object_id],
                ),
            ),
            **facts,
            **(extra_context or {}),
        }
        return TemplateResponse(request, self.detail, context)

    def _refused(self, request: Any, error: ForgeError) -> Any:
        """Return the page that says so, such as that the database is away."""
        context = {**self.admin_site.each_context(request), "title": "", "refusal": str(error)}
        return TemplateResponse(request, "admin/forge_jobs/refused.html", context, status=503)

    def asked(self, request: Any) -> Move | None:
        """Return what the button of the page does; None for what there is no button for."""
        return next((move for name, move in self.moves.items() if name in request.POST), None)


def with_backend(request: Any, address: str) -> str:
    """Return the address of another page of the same backend."""
    chosen = of_backend(backend_of(request))
    return f"{address}?{urlencode(chosen)}" if chosen else address


def counted(state: str) -> Any:
    """Return the column that says how many jobs of a queue are in the state; it leads to them."""

    @admin.display(description=state.replace("_", " "))
    def column(row: Any) -> Any:
        number = getattr(row.counts, state, 0)
        jobs = reverse(f"admin:{Job._meta.app_label}_{Job._meta.model_name}_changelist")
        query = urlencode({"queue": row.name, "state": state} | of_backend(row.backend))
        return format_html('<a href="{}?{}">{}</a>', jobs, query, f"{number:,}") if number else 0

    return column


@admin.register(Job)
class JobAdmin(Shown):
    """Jobs: a list with filters, and a page of each with all that is known of it."""

    moves = {"retry": retry, "cancel": cancel, "run_now": run_now}  # noqa: RUF012
    detail = "admin/forge_jobs/job/detail.html"
    list_display = ("id", "state", "kind", "when", "said", "queue", "attempts", "key", "tagged", "enqueued")
    list_filter = (OfBackend, OfState, OfQueue, OfKind, WithTag)
    search_fields = ("id", "key")
    search_help_text = "The id or the key of a job."
    actions = ("retry_chosen", "cancel_chosen", "run_chosen_now")

    def get_changelist(self, request: Any, **_: Any) -> Any:
        """Return the class of the list."""
        return JobRows

    def name_of(self, row: Any) -> str:
        """Return what the job is called in a sentence."""
        return f"job {row.pk}"

    @admin.display(description="attempt")
    def attempts(self, row: Any) -> str:
        """Return how many attempts there were, of how many."""
        return attempts_of(row)

    @admin.display(description="tags")
    def tagged(self, row: Any) -> Any:
        """Return the tags, which lead to the jobs that have them."""
        links = ((urlencode({"tag": tag} | of_backend(row.backend)), tag) for tag in row.tags)
        return format_html_join(" ", '<a href="?{}">{}</a>', links)

    @admin.display(description="when")
    def when(self, row: Any) -> str:
        """Return how far away the moment is that matters in the job's state."""
        return from_now(row.finished_at or row.claimed_at or row.run_at)

    @admin.display(description="enqueued")
    def enqueued(self, row: Any) -> str:
        """Return how long ago it was enqueued."""
        return from_now(row.created_at)

    @admin.display(description="error")
    def said(self, row: Any) -> str:
        """Return what its error says."""
        return first_line(row.error)[:120] if row.error else ""

    @admin.action(description="Retry dead, expired and retrying jobs", permissions=["change"])
    def retry_chosen(self, request: Any, _: Any) -> None:
        """The chosen jobs are retried."""
        self.do_all(request, retry)

    @admin.action(description="Cancel jobs that have not ended", permissions=["change"])
    def cancel_chosen(self, request: Any, _: Any) -> None:
        """The chosen jobs are cancelled."""
        self.do_all(request, cancel)

    @admin.action(description="Run scheduled and retrying jobs now", permissions=["change"])
    def run_chosen_now(self, request: Any, _: Any) -> None:
        """The chosen jobs are pending."""
        self.do_all(request, run_now)

    def key_of(self, name: str) -> int:
        """Return the id that is written so. Raises InvalidInput."""
        if not (name.isascii() and name.isdecimal() and 0 < int(name) <= MAX_ID):
            raise InvalidInput(f"The id of a job is {name[:40]!r}, allowed is a number from 1 to {MAX_ID}.")
        return int(name)

    def facts(self, name: str) -> dict[str, Any]:
        """Return all that is known of a job. Raises ForgeError."""
        jobs = shown_backend().opened().jobs
        job = jobs.get(self.key_of(name))
        return {
            "original": Job.of(job),
            "job": job,
            "card": list(card(job)),
            "why": jobs.why(job.id).reasons,
            "history": [
                (entry, first_line(entry.note) if entry.note else "") for entry in jobs.history(job.id)
            ],
            "payload": written(job.payload, job),
            "result": written(job.result, job),
            "buttons": buttons(job),
        }


@admin.register(Queue)
class QueueAdmin(Shown):
    """Queues: how many jobs are in each state, and pauses."""

    moves = {"pause": pause, "resume": resume}  # noqa: RUF012
    detail = "admin/forge_jobs/queue/detail.html"
    list_display = (
        "name",
        "status",
        "concurrency",
        "pending",
        "scheduled",
        "blocked",
        "waiting",
        "in_progress",
        "done",
        "dead",
        "expired",
        "oldest_pending",
    )
    list_filter = (OfBackend,)
    actions = ("pause_chosen", "resume_chosen")

    def get_changelist(self, request: Any, **_: Any) -> Any:
        """Return the class of the list."""
        return QueueRows

    def name_of(self, row: Any) -> str:
        """Return what the queue is called in a sentence."""
        return f"queue {row.pk}"

    pending, scheduled, blocked, waiting, in_progress, done, dead, expired = map(
        staticmethod,
        map(counted, list_display[3:11]),
    )

    @admin.display(description="oldest pending")
    def oldest_pending(self, row: Any) -> str:
        """Return since when the oldest pending job waits."""
        return from_now(getattr(row.counts, "oldest_pending_at", None))

    @admin.display(description="status")
    def status(self, row: Any) -> str:
        """Return whether it is paused, until when, and why."""
        return status_of(row)

    @admin.action(description="Pause queues", permissions=["change"])
    def pause_chosen(self, request: Any, _: Any) -> None:
        """The chosen queues are paused."""
        self.do_all(request, pause)

    @admin.action(description="Resume queues", permissions=["change"])
    def resume_chosen(self, request: Any, _: Any) -> None:
        """The chosen queues are claimed from again."""
        self.do_all(request, resume)

    def key_of(self, name: str) -> str:
        """Return the name of the queue. Raises InvalidInput."""
        return names.queue(name)

    def facts(self, name: str) -> dict[str, Any]:
        """Return what is said of a queue. Raises UnknownQueue."""
        queue = shown_backend().opened().queues.get(name)
        row = Queue.of(queue)
        return {"original": row, "queue": queue, "status": status_of(row)}

    def asked(self, request: Any) -> Move | None:
        """Return what the button of the page does; a pause is as long, and for the reason, that the page asked for."""
        move = super().asked(request)
        if move is not pause:
            return move
        until, why = request.POST.get("for", "").strip(), request.POST.get("why", "").strip()
        return lambda name: pause(name, until, why or None)

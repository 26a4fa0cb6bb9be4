"""Scenes of the admin, which `django_program` runs."""

import html
import io
import re
from datetime import timedelta
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import connections
from django.db.models import F, Max
from django.db.models.functions import ExtractYear, Now, TruncDay
from django.test import Client
from django.urls import path
from django.utils import timezone

from forge_jobs.integrations.django.models import Job, Queue, showing, shown_backend

urlpatterns = [path("admin/", admin.site.urls)]

JOBS, QUEUES = "/admin/forge_jobs/job/", "/admin/forge_jobs/queue/"


def client(*permissions: str, name: str = "somebody") -> Client:
    user, _ = User.objects.get_or_create(username=name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    made = Client()
    made.force_login(user)
    return made


def all_may(name: str = "boss") -> Client:
    return client("view_job", "change_job", "view_queue", "change_queue", name=name)


def sync() -> Any:
    return shown_backend().opened()


def three_jobs() -> list[int]:
    """A job with a key and tags, one that is dead and one that is scheduled."""
    jobs = [
        sync().enqueue("shop.ship", {"order": 7}, key="order-7", tags=["urgent", "eu"], queue="mail"),
        sync().enqueue("shop.bill"),
        sync().enqueue("shop.bill", delay=3600),
    ]
    sync().jobs.cancel(jobs[1])
    return [job.id for job in jobs]


def listed(answer: Any) -> list[int]:
    return [
        int(job_id)
        for job_id in re.findall(r'name="_selected_action" value="(\d+)"', answer.content.decode())
    ]


def said(answer: Any) -> list[str]:
    items = re.findall(r'<li class="(?:success|error|info)">(.*?)</li>', answer.content.decode())
    return [html.unescape(item) for item in items]


def jobs_are_found() -> Any:
    ids = three_jobs()
    boss = all_may()
    words = ["", "?state=dead", "?queue=mail", "?kind=shop.bill", "?tag=eu", "?q=order-7", f"?q={ids[2]}"]
    words += ["?q=order-7&state=dead", f"?before={ids[1]}", "?q=nobody"]
    found = [[ids.index(job_id) for job_id in listed(boss.get(JOBS + word))] for word in words]
    return [found, said(boss.get(JOBS + "?queue=nowhere"))]


def a_page_of_a_job() -> Any:
    backend = shown_backend()
    if "shop.pay" not in backend.forge.handlers:
        backend.forge.handler(kind="shop.pay", redact=("card",))(pay)
    job = sync().enqueue("shop.pay", {"card": "4111", "order": "<b>7</b>"}, key="order-7")
    sync().jobs.fail(job, "no <money>")
    page = all_may().get(f"{JOBS}{job.id}/change/").content.decode()
    unknown = [all_may().get(f"{JOBS}{name}/change/").status_code for name in (10**12, "x", 10**30)]
    wanted = [
        "It is dead since",
        "no &lt;money&gt;",
        "(redacted)",
        "&lt;b&gt;7&lt;/b&gt;",
        "order-7",
        "enqueued",
    ]
    trails = {
        re.findall(r'<(\w+) class="breadcrumbs"', shown)[0]
        for shown in (page, all_may().get(JOBS).content.decode())
    }
    shows_too_much = "4111" in page or "<b>7" in page
    return [[word for word in wanted if word not in page], shows_too_much, unknown, len(trails)]


def pay(card: str, order: str) -> None: ...


def jobs_are_moved() -> Any:
    [waiting, dead, scheduled] = three_jobs()
    boss = all_may()

    def chosen(action: str, *ids: int) -> list[str]:
        return said(boss.post(JOBS, {"action": action, "_selected_action": ids, "index": 0}, follow=True))

    heard = [
        chosen("retry_chosen", dead, waiting),
        chosen("run_chosen_now", scheduled),
        chosen("cancel_chosen", waiting),
        said(boss.post(f"{JOBS}{waiting}/change/", {"retry": "Retry"}, follow=True)),
    ]
    named = [[re.sub(r"(?i)job \d+", "Job", sentence) for sentence in every] for every in heard]
    log = boss.get(f"{JOBS}{waiting}/history/").content.decode()
    return [
        [[sentence[:40] for sentence in every] for every in named],
        [sync().jobs.get(job_id).state for job_id in (waiting, dead, scheduled)],
        "is cancelled" in log and "is pending" in log,
    ]


def only_who_may() -> Any:
    [waiting, _, _] = three_jobs()
    page, retry = (
        f"{JOBS}{waiting}/change/",
        {"action": "cancel_chosen", "_selected_action": [waiting], "index": 0},
    )
    viewer, stranger = client("view_job", name="viewer"), client(name="stranger")
    answers = [
        viewer.get(JOBS).status_code,
        viewer.get(page).status_code,
        b'name="cancel"' in viewer.get(page).content,
        b"cancel_chosen" in viewer.get(JOBS).content,
        viewer.post(page, {"cancel": "Cancel"}).status_code,
        viewer.get(QUEUES).status_code,
        stranger.get(JOBS).status_code,
        stranger.get(page).status_code,
        Client().get(page).status_code,
    ]
    viewer.post(JOBS, retry)
    boss = all_may()
    answers += [boss.get(f"{JOBS}add/").status_code, boss.get(f"{JOBS}{waiting}/delete/").status_code]
    answers += [boss.post(page, {"explode": "1"}).status_code]
    return [answers, sync().jobs.get(waiting).state]


def queues_are_paused() -> Any:
    three_jobs()
    boss, page = all_may(), f"{QUEUES}mail/change/"
    heard = [
        said(boss.post(page, {"pause": "Pause", "for": "soon", "why": ""}, follow=True)),
        said(boss.post(page, {"pause": "Pause", "for": "10m", "why": "no mail"}, follow=True)),
    ]
    shown = boss.get(QUEUES).content.decode()
    queue = Queue.objects.get(name="mail")
    facts = [queue.paused, queue.pause_reason, timezone.now() < queue.paused_until, ": no mail" in shown]
    heard.append(
        said(
            boss.post(
                QUEUES, {"action": "resume_chosen", "_selected_action": ["mail"], "index": 0}, follow=True
            )
        )
    )
    return [heard, facts, sync().queues.get("mail").paused, f"{JOBS}?queue=mail&amp;state=pending" in shown]


def models_read_only() -> Any:
    [waiting, _, scheduled] = three_jobs()
    job = Job.objects.get(key="order-7")
    refused = []
    for change in (job.save, job.delete, Queue(name="x").save):
        try:
            change()
        except NotImplementedError as error:
            refused.append(str(error))
    recent = Job.objects.filter(created_at__gt=timezone.now() - timedelta(minutes=5))
    later = Job.objects.filter(run_at__gt=timezone.now()).values_list("pk", flat=True)
    return [job.pk == waiting, job.tags, recent.count(), list(later) == [scheduled], refused]


def querysets_write_nothing() -> Any:
    three_jobs()
    mail, jobs = Queue.objects.filter(name="mail"), Job.objects.filter(state="pending")
    refused = []
    for change in (
        mail.delete,
        partial(mail.update, paused=True),
        partial(Queue.objects.bulk_create, [Queue(name="x", paused=False)]),
        partial(Queue.objects.bulk_update, list(mail), ["paused"]),
        jobs.delete,
        partial(jobs.update, priority=7),
    ):
        try:
            change()
        except NotImplementedError as error:
            refused.append(str(error))
    there = [(queue.name, queue.paused) for queue in sync().queues.list() if queue.name in ("mail", "x")]
    return [refused, there, {job.priority for job in sync().jobs.list()} == {0}]


def querysets_of_two_databases() -> Any:
    ids = three_jobs()
    with showing("beside"):
        sync().queues.ensure("beside")
        job = sync().enqueue("shop.beside", queue="beside")
    ours, kept = Job.objects.all(), Job.objects.only("kind").get(key="order-7")
    with showing("beside"):
        theirs = Job.objects.filter(state="pending")
        kinds = list(Job.objects.values_list("kind", flat=True))
        kept.refresh_from_db()
        state = kept.state  # which is read just now
        used = Queue.objects.using("jobs").filter(name__in=Job.objects.using("jobs").values("queue"))
        named = list(used.order_by("name").values_list("name", flat=True))
    found = [sorted(ours.values_list("pk", flat=True)) == ids, ours.count(), theirs.count(), theirs.get().pk]
    with showing("beside"):
        sync().jobs.cancel(job)
        sync().jobs.delete_all(state="dead")
    return [[*found[:3], found[3] == job.id], kinds, [kept.kind, state], named]


def tags_are_asked_for() -> Any:
    [tagged, *_] = three_jobs()
    asked = ["urgent", ["eu", "urgent"], ["eu", "late"], "urg", []]
    found = [list(Job.objects.filter(tags__contains=tags).values_list("pk", flat=True)) for tags in asked]
    others = tagged in Job.objects.exclude(tags__contains="eu").values_list("pk", flat=True)
    refused = []
    for lookup in ("tags", "tags__icontains"):
        try:
            Job.objects.filter(**{lookup: ["urgent"]}).count()
        except FieldError as error:
            refused.append(str(error).partition(" or ")[0])
    return [[tagged in ids for ids in found], len(found[4]), others, refused]


def parts_of_moments_are_asked_for() -> Any:
    three_jobs()
    today = timezone.localdate()
    asked: list[dict[str, Any]] = [
        {"created_at__date": today},
        {"created_at__date__lt": today},
        {"created_at__year": today.year},
        {"created_at__year__lt": today.year},
        {"created_at__month": today.month, "finished_at__isnull": True},
    ]
    return [Job.objects.filter(**lookups).count() for lookups in asked]


def moments_are_computed_with() -> Any:
    [_, _, scheduled] = three_jobs()
    jobs, created = Job.objects.all(), F("created_at")
    first = jobs.earliest("created_at")
    here = timezone.localtime(first.created_at) if settings.USE_TZ else first.created_at
    days = {moment.date() for moment in jobs.annotate(day=TruncDay(created)).values_list("day", flat=True)}
    years = set(jobs.annotate(year=ExtractYear(created)).values_list("year", flat=True))
    now = (
        Now() if settings.USE_TZ else timezone.now()
    )  # that of SQLite is in UTC, whatever Django writes there
    return [
        list(jobs.filter(run_at__gt=now).values_list("pk", flat=True)) == [scheduled],
        days == {here.date()},
        years == {here.year},
        jobs.filter(created_at__gte=TruncDay(created)).count(),
        jobs.filter(run_at__gt=created + timedelta(minutes=1)).count(),
        jobs.get(created_at=first.created_at).pk == first.pk,
        jobs.aggregate(last=Max("created_at"))["last"] == jobs.latest("created_at").created_at,
        jobs.filter(created_at__hour=here.hour).count(),
    ]


def who_did_it_is_noted() -> Any:
    [waiting, _, _] = three_jobs()
    boss = all_may("ada")
    boss.post(f"{QUEUES}mail/change/", {"pause": "Pause", "for": "", "why": "no mail"})
    boss.post(f"{QUEUES}mail/change/", {"resume": "Resume"})
    boss.post(JOBS, {"action": "cancel_chosen", "_selected_action": [waiting], "index": 0})
    of_queue = [(one.what, one.by) for one in sync().interventions.list(subject="queue mail", limit=2)]
    return [of_queue, [entry.by.split()[0] for entry in sync().jobs.history(waiting) if entry.by]]


def migrations_make_nothing_twice() -> Any:
    def tables() -> list[str]:
        return [
            table
            for alias in ("default", "jobs")
            for table in connections[alias].introspection.table_names(include_views=True)
        ]

    before, out = tables(), io.StringIO()
    three_jobs()
    for alias in ("default", "jobs"):
        call_command("migrate", database=alias, verbosity=0)
        call_command("migrate", "forge_jobs", "zero", database=alias, verbosity=0)
        call_command("migrate", database=alias, verbosity=0)
    call_command("makemigrations", check=True, dry_run=True, stdout=out)
    call_command("dumpdata", database="jobs", stdout=(dump := io.StringIO()))
    is_kept = len(sync().jobs.list()) == 3
    return [before == tables(), out.getvalue().strip(), "order-7" in dump.getvalue(), is_kept]


def strange_choices() -> Any:
    three_jobs()
    boss, heard = all_may(), []
    for name in ("x", "-1", "9" * 30):
        chosen = {"action": "retry_chosen", "_selected_action": [name], "index": 0}
        heard += said(boss.post(JOBS, chosen, follow=True))
    return heard


def the_database_is_away() -> Any:
    [waiting, _, _] = three_jobs()
    boss, page = all_may(), f"{JOBS}{waiting}/change/"
    settings = connections["jobs"].settings_dict
    there = {"NAME": settings["NAME"], "OPTIONS": settings["OPTIONS"]}
    is_postgres = connections["jobs"].vendor == "postgresql"
    settings["NAME"] = "nowhere" if is_postgres else "/nowhere/jobs.sqlite3"
    try:
        answers = [
            boss.get(JOBS),
            boss.get(QUEUES),
            boss.get(page),
            boss.get(page.replace("change", "history")),
        ]
        answers += [boss.post(page, {"cancel": "Cancel"})]
        return [
            [answer.status_code for answer in answers],
            [len(said(answer)) for answer in answers],
        ]
    finally:
        settings.update(there)


def each_database_is_shown() -> Any:
    three_jobs()
    boss = all_may()
    with showing("beside"):
        sync().queues.ensure("beside")
        job = sync().enqueue("shop.beside", queue="beside")
    theirs = boss.get(JOBS + "?backend=beside")
    text = theirs.content.decode()
    [link] = re.findall(rf'href="({JOBS}{job.id}/change/[^"]*)"', text)
    [filtered] = re.findall(r'<a href="\?backend=beside"[^>]*>([^<]*)', boss.get(JOBS).content.decode())
    boss.post(html.unescape(link), {"cancel": "Cancel"})
    boss.post(JOBS + "?backend=beside", {"action": "retry_chosen", "_selected_action": [job.id], "index": 0})
    log = boss.get(f"{JOBS}{job.id}/history/?backend=beside").content.decode()
    with showing("beside"):
        state = sync().jobs.get(job).state
        sync().jobs.cancel(job)
        sync().jobs.delete_all(state="dead")
    queues = boss.get(QUEUES + "?backend=beside").content.decode()
    return [
        [listed(theirs) == [job.id], len(listed(boss.get(JOBS)))],
        filtered.strip(),
        state,
        log.count("(backend beside)"),
        f"{QUEUES}beside/change/?_changelist_filters=backend%3Dbeside" in queues,
        said(boss.get(JOBS + "?backend=nobody", follow=True)),
    ]


scenes = [
    strange_choices,
    the_database_is_away,
    each_database_is_shown,
    jobs_are_found,
    a_page_of_a_job,
    jobs_are_moved,
    only_who_may,
    queues_are_paused,
    models_read_only,
    querysets_write_nothing,
    querysets_of_two_databases,
    tags_are_asked_for,
    parts_of_moments_are_asked_for,
    moments_are_computed_with,
    who_did_it_is_noted,
    migrations_make_nothing_twice,
]

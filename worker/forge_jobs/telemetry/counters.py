"""Count what happens in this process, from events.

`metrics` shows the numbers. Plain integers and lists, since prometheus_client's own
counters cost microseconds for each observation, and a worker may end 25,000 jobs a second.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from forge_jobs.model.run import Outcome
from forge_jobs.model.statistics import BUCKETS
from forge_jobs.telemetry import events
from forge_jobs.telemetry.events import Event
from forge_jobs.telemetry.job_series import JobSeries

_COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "forge_outcomes_dropped": (
        "Outcomes that were dropped because the job had been taken back from this process.",
        (),
    ),
    "forge_outcomes_refused": (
        "Outcomes that the database refused and that were written without the part that it refused.",
        (),
    ),
    "forge_outcomes_parted": (
        "Outcomes that could not be written together with others and were written one by one.",
        (),
    ),
    "forge_outcomes_held": ("Outcomes that could not be written at once and were tried again later.", ()),
    "forge_outcomes_unwritten": ("Outcomes that this process could not write before it ended.", ()),
    "forge_jobs_stuck": (
        "Handlers that went on for 10 s after they were told to stop, so other jobs got their slots.",
        ("queue", "kind"),
    ),
    "forge_jobs_adrift": (
        "Jobs handed back because this process had claimed them but did not run them.",
        (),
    ),
    "forge_runners_replaced": ("Runners that ended unexpectedly and were replaced.", ()),
    "forge_exits_contained": (
        "Exits (sys.exit and the like) that did not end this process. The kind is that of the job that gave them to the "
        "event loop, empty when it is not known.",
        ("kind",),
    ),
    "forge_jobs_unknown_kind": (
        "Jobs handed back because this program has no handler for their kind.",
        ("queue",),
    ),
    "forge_jobs_codec_missing": (
        "Attempts for which this program lacked a codec or a key; their jobs wait, and lose none.",
        ("queue", "kind"),
    ),
    "forge_jobs_made_pending": ("Scheduled jobs that this process made pending.", ()),
    "forge_jobs_risen": (
        "Times that this process let a job rise that had waited for its queue's age_after.",
        ("queue",),
    ),
    "forge_jobs_taken_back": ("Jobs that this process took back from lost workers.", ("queue",)),
    "forge_jobs_swept": ("Ended jobs that this process deleted after their retention.", ()),
    "forge_queue_cooldowns": ("Times that a throttled job made its queue cool down.", ("queue",)),
    "forge_rate_limit_leased_tokens": ("Tokens that this process took out of the bucket.", ("scope",)),
    "forge_rate_limit_emptied": ("Times that this process emptied the bucket.", ("scope",)),
    "forge_cron_fired": ("Jobs that this process enqueued for the cron.", ("cron",)),
    "forge_cron_skipped": (
        "Fire times of the cron that this process skipped: its last job had not ended, another has its key, or its group drops it.",
        ("cron",),
    ),
    "forge_leader_elections": ("Times that this process became the leader.", ()),
    "forge_database_losses": ("Times that the database did not answer a call.", ()),
    "forge_worker_cut_off": (
        "Times that this process stopped its handlers because it could not send a heartbeat for too long.",
        (),
    ),
    "forge_worker_outages_outlived": (
        "Times that this process let its handlers go on for longer than its stale time because nobody could use the database.",
        (),
    ),
    "forge_loop_blocks": (
        "Times that a handler of this kind blocked the event loop of this process for a second or more.",
        ("kind",),
    ),
    "forge_group_places_mended": (
        "Places in groups that this process found left behind, and gave away.",
        (),
    ),
    "forge_flow_nodes_mended": (
        "Nodes of flows that this process found left open, and handed on.",
        (),
    ),
    "forge_hook_failures": ("Times that a method of a plugin failed.", ("hook",)),
    "forge_chore_failures": ("Times that a chore failed with an unexpected error.", ("chore",)),
}

_OF_JOBS: Mapping[type[Event], str] = {
    events.OutcomesDropped: "forge_outcomes_dropped",
    events.OutcomesParted: "forge_outcomes_parted",
    events.OutcomesHeld: "forge_outcomes_held",
    events.OutcomesUnwritten: "forge_outcomes_unwritten",
    events.ClaimsAdrift: "forge_jobs_adrift",
}
"""The counters to which these events add as many as they name jobs."""

_OF_MANY: Mapping[type[Event], str] = {
    events.JobsMadePending: "forge_jobs_made_pending",
    events.GroupsMended: "forge_group_places_mended",
    events.NodesMended: "forge_flow_nodes_mended",
    events.JobsSwept: "forge_jobs_swept",
}
"""The counters to which these events add their count."""

_OF_ONE: Mapping[type[Event], str] = {
    events.OutcomeRefused: "forge_outcomes_refused",
    events.RunnerReplaced: "forge_runners_replaced",
    events.DatabaseLost: "forge_database_losses",
    events.OutageOutlived: "forge_worker_outages_outlived",
}
"""The counters to which these events add one."""

_ALWAYS_SHOWN = frozenset({Outcome.DONE, Outcome.FAILED, Outcome.DEAD})
"""Shown as 0 too, since `rate` and `increase` do not see a series' first value."""


class Counters:
    """Counts events; subscribe it to a Telemetry. `series` counts attempts, and is subscribed too; None: one of its own does."""

    def __init__(self, series: JobSeries | None = None) -> None:
        self._series = JobSeries() if series is None else series
        self._series.is_exact = True
        self._is_alone = series is None  # nobody else tells it what happens
        self.capacities: dict[str, int] = {}  # by label of the worker
        self.stuck = 0  # handlers that go on though they were told to stop
        self.leads = False
        self.tenants: dict[str, events.TenantsWaiting] = {}  # by queue, while it leads
        self.awaited: dict[str, int] = {}  # jobs that wait for tokens of keys, by rate limit, while it leads
        self._counters: dict[str, dict[tuple[str, ...], int]] = {
            name: {} if labels else {(): 0} for name, (_, labels) in _COUNTERS.items()
        }

    def __call__(self, event: Event) -> None:
        if self._is_alone:
            self._series(event)
        match event:
            case events.JobsTakenBack():
                for run in event.runs:
                    self._add("forge_jobs_taken_back", 1, run.queue)
            case (
                events.OutcomesDropped()
                | events.OutcomesParted()
                | events.OutcomesHeld()
                | events.OutcomesUnwritten()
                | events.ClaimsAdrift()
            ):
                self._add(_OF_JOBS[type(event)], len(event.job_ids))
            case (
                events.OutcomeRefused()
                | events.RunnerReplaced()
                | events.DatabaseLost()
                | events.OutageOutlived()
            ):
                self._add(_OF_ONE[type(event)], 1)
            case events.HandlerStuck():
                self._add("forge_jobs_stuck", 1, event.queue, event.claim.kind)
                self.stuck += 1
            case events.StuckHandlerEnded():
                self.stuck -= 1
            case events.ExitContained():
                self._add("forge_exits_contained", 1, event.claim.kind if event.claim else "")
            case events.UnknownKind():
                self._add("forge_jobs_unknown_kind", event.jobs, event.queue)
            case events.CodecMissing():
                self._add("forge_jobs_codec_missing", 1, event.queue, event.claim.kind)
            case events.JobsMadePending() | events.GroupsMended() | events.NodesMended() | events.JobsSwept():
                self._add(_OF_MANY[type(event)], event.count)
            case events.JobsRose():
                self._add("forge_jobs_risen", event.count, event.queue)
            case events.QueueCooled():
                self._add("forge_queue_cooldowns", 1, event.queue)
            case events.TokensLeased():
                self._add("forge_rate_limit_leased_tokens", event.tokens, event.scope)
            case events.LimitEmptied():
                self._add("forge_rate_limit_emptied", 1, event.scope)
            case events.CronFired():
                self._add("forge_cron_fired", event.enqueued, event.name)
                self._add("forge_cron_skipped", event.skipped, event.name)
            case events.LeaderChanged():
                self._lead(event.leads)
                self._add("forge_leader_elections", int(event.leads))
            case events.HookFailed():
                self._add("forge_hook_failures", 1, event.hook)
            case events.ChoreFailed():
                self._add("forge_chore_failures", 1, event.chore)
            case events.LoopBlocked() if event.is_first:
                self._add("forge_loop_blocks", 1, event.claim.kind if event.claim else "")
            case events.WorkerCutOff():
                self._lead(False)
                self._add("forge_worker_cut_off", 1)
            case _:
                self._remember(event)

    def _remember(self, event: Event) -> None:
        """Keep what is so until another event says otherwise."""
        match event:
            case events.WorkerStarted():
                self.capacities[event.label] = event.concurrency
            case events.WorkerStopped():
                self.capacities.pop(event.label, None)
            case events.TenantsWaiting():
                self.tenants[event.queue] = event
            case events.TokensAwaited():
                self.awaited[event.scope] = event.jobs

    def _lead(self, leads: bool) -> None:
        self.leads = leads
        self.tenants.clear()
        self.awaited.clear()

    def _add(self, name: str, count: int, *labels: str) -> None:
        counter = self._counters[name]
        counter[labels] = counter.get(labels, 0) + count

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers as Prometheus knows them."""
        labels = ("queue", "kind")
        ended = CounterMetricFamily(
            "forge_jobs_ended",
            "Attempts that ended in this process, and waiting jobs whose time was over.",
            labels=(*labels, "outcome"),
        )
        wait = HistogramMetricFamily(
            "forge_jobs_wait_seconds",
            "Time from when a job was pending to its handler's start.",
            labels=labels,
        )
        duration = HistogramMetricFamily("forge_jobs_run_seconds", "Time that a handler ran.", labels=labels)
        for names, series in self._series:
            for outcome, count in series.outcomes.items():
                if count or outcome in _ALWAYS_SHOWN:
                    ended.add_metric((*names, outcome.value), count)
            wait.add_metric(names, _cumulated(series.waits), series.wait)
            duration.add_metric(names, _cumulated(series.durations), series.duration)
        yield from (ended, wait, duration)
        for name, (meaning, label_names) in _COUNTERS.items():
            counter = CounterMetricFamily(name, meaning, labels=label_names)
            for values, count in self._counters[name].items():
                counter.add_metric(values, count)
            yield counter


_BOUNDS = tuple(str(bound) for bound in (*BUCKETS, "+Inf"))


def _cumulated(buckets: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(_BOUNDS, accumulate(buckets), strict=True))

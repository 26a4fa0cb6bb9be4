"""What the log says: for each event its level and its sentence, in which the names are those of the event's facts."""

import logging
from collections.abc import Mapping

from forge_jobs.model.run import Outcome
from forge_jobs.telemetry import events
from forge_jobs.telemetry.events import Event

OUTCOMES: Mapping[Outcome, tuple[int, str]] = {
    Outcome.DONE: (logging.INFO, "is done"),
    Outcome.FAILED: (logging.WARNING, "failed"),
    Outcome.DEAD: (logging.ERROR, "is dead"),
    Outcome.CANCELLED: (logging.INFO, "was cancelled"),
    Outcome.EXPIRED: (logging.WARNING, "was not run"),
    Outcome.SUPERSEDED: (logging.INFO, "was superseded"),
    Outcome.THROTTLED: (logging.INFO, "was throttled"),
    Outcome.RESCHEDULED: (logging.INFO, "was rescheduled"),
    Outcome.HANDED_BACK: (logging.INFO, "was handed back"),
    Outcome.LOST: (logging.WARNING, "was lost with its worker"),
}

SENTENCES: Mapping[type[Event], tuple[int, str]] = {
    events.OutcomesDropped: (
        logging.WARNING,
        "Outcomes of jobs {job_ids} were dropped: the jobs had been taken back meanwhile",
    ),
    events.HistoryCut: (
        logging.WARNING,
        "The database's history was cut, as by a crash, a fail-over or a restore: it still knows {kept} jobs of this "
        "worker; these were stopped, since it does not know them: {job_ids}",
    ),
    events.OperationEnded: (logging.INFO, "Operation {operation_id} has ended: {count} jobs were {move}"),
    events.OperationHeldUp: (
        logging.WARNING,
        "Operation {operation_id} is held up, and tried again: {error}",
    ),
    events.NodesMended: (
        logging.WARNING,
        "{count} nodes of flows had been left open though their jobs had ended, or though they waited for nothing: their flows go on now",
    ),
    events.GroupsMended: (
        logging.WARNING,
        "{count} places in groups had been left taken, or free beside jobs that wait for them: they are given away now",
    ),
    events.OutcomeRefused: (
        logging.ERROR,
        "The database refused the outcome of job {job_id} ({error}); written instead: {kept}",
    ),
    events.OutcomesParted: (
        logging.WARNING,
        "Outcomes of jobs {job_ids} could not be written together: {error}; they are written apart",
    ),
    events.OutcomesHeld: (
        logging.ERROR,
        "Outcomes of jobs {job_ids} cannot be written: {error}; next try in {retry_in} s; other outcomes are written meanwhile",
    ),
    events.OutcomesUnwritten: (
        logging.ERROR,
        "Outcomes of jobs {job_ids} could not be written before the worker ended: "
        "the jobs will be taken back, and may run again",
    ),
    events.ClaimsAdrift: (
        logging.ERROR,
        "Jobs {job_ids} were this worker's, but it did not run them: they are handed back",
    ),
    events.HandlerStuck: (
        logging.ERROR,
        "The handler of job {job_id} goes on though it was told to stop ({why}): it has run for {duration} s, "
        "and another job gets its slot; {stuck} handlers are stuck",
    ),
    events.BatchGoesOn: (
        logging.WARNING,
        "Job {job_id} was told to stop ({why}) after {duration} s, and its batch goes on for others: "
        "it is in progress until the batch has ended",
    ),
    events.StuckHandlerEnded: (
        logging.WARNING,
        "The handler of job {job_id}, which had been told to stop, ended after {duration} s; {stuck} handlers are stuck",
    ),
    events.JobProcessReplaced: (logging.INFO, "The process {process_name} is replaced: {why}"),
    events.RunnerReplaced: (logging.ERROR, "A runner ended: {error}; another takes its place"),
    events.CloseWaits: (
        logging.WARNING,
        "Closing the forge waits for {function}, which has taken more than {seconds} s",
    ),
    events.CloseGivenUp: (
        logging.ERROR,
        "Closing the forge gives {function} up after {seconds:.1f} s: it is cancelled, and what it closes may be left open",
    ),
    events.SignalTaken: (
        logging.WARNING,
        "Something in this process replaced the worker's handler for {signal}; the worker restored it, so the signal stops it again",
    ),
    events.CancelRefused: (
        logging.WARNING,
        "Job {job_id} ({kind}) tried to cancel tasks of the worker, which go on",
    ),
    events.GraceLost: (
        logging.WARNING,
        "Job {job_id} is handed back: the processes that it had started got the worker's stop signal too, so it had no grace; "
        "under systemd, KillMode=mixed leaves it its grace",
    ),
    events.ExitContained: (
        logging.ERROR,
        "{error} at {where} would have ended worker {worker}, which goes on; it came from {origin}; running jobs: {running}",
    ),
    events.SubscriberFailed: (logging.ERROR, "Subscriber {subscriber} failed on event {heard}: {error}"),
    events.HookFailed: (logging.ERROR, "{hook} failed: {error}"),
    events.HookWaits: (logging.WARNING, "{hook} has gone on for {seconds} s, and is waited for"),
    events.PinnedElsewhere: (
        logging.INFO,
        "{jobs} jobs of queue {queue} were begun by version {version}, which has to go on with them: they were handed back",
    ),
    events.PinnedUnserved: (
        logging.WARNING,
        "Version {version} has to go on with {jobs} pending jobs of queue {queue}, and no live worker of it serves that: "
        "start one, or let any version go on with a job by: forge-jobs jobs unpin",
    ),
    events.CodecMissing: (
        logging.ERROR,
        "Job {job_id} ({kind}) cannot be read by this worker, so it waits, at no cost of an attempt: {error}",
    ),
    events.UnknownKind: (
        logging.WARNING,
        "No handler for kind {kind} of queue {queue}: {jobs} jobs were handed back",
    ),
    events.KindsUnpublished: (
        logging.WARNING,
        "What the handlers of {kinds} declare could not be published, so it does not hold for jobs that others "
        "enqueue by name: {error}",
    ),
    events.UnknownLimit: (
        logging.ERROR,
        "There is no rate limit {scope}, which queue {queue} takes tokens from: none of its jobs is started",
    ),
    events.WorkerStarted: (
        logging.INFO,
        "Worker {worker} serves {queues} of {database}, up to {concurrency} jobs at once; kinds: {kinds}",
    ),
    events.HeavyKind: (
        logging.WARNING,
        "A job of kind {kind} takes {slots} slots, of which this worker has {concurrency}: each of them runs alone here",
    ),
    events.PinUnversioned: (
        logging.WARNING,
        "Jobs of {kinds} are pinned to a version, and this worker has none: give each release another FORGE_WORKER_VERSION, or "
        "the next one goes on with what this one has begun",
    ),
    events.WorkerStopping: (
        logging.INFO,
        "Worker {worker} stops ({reason}): {running} jobs may run for {grace} s more",
    ),
    events.WorkerStopped: (logging.INFO, "Worker {worker} stopped, {handed_back} jobs were handed back"),
    events.WorkerCutOff: (
        logging.ERROR,
        "Worker {worker} could not send a heartbeat in time and is cut off: its {running} running jobs are stopped and wait again",
    ),
    events.OutageOutlived: (
        logging.WARNING,
        "Worker {worker} could not send a heartbeat for {seconds} s, and its running jobs go on: "
        "nobody can use the database ({error})",
    ),
    events.LoopBlocked: (
        logging.ERROR,
        "The event loop of worker {worker} has been blocked for {seconds} s by {handler} at {where}: "
        "no heartbeat and no other job goes on",
    ),
    events.LoopFree: (
        logging.WARNING,
        "The event loop of worker {worker} runs again; it was blocked for {seconds} s by {handler}",
    ),
    events.WorkersLost: (
        logging.WARNING,
        "Workers {labels} were silent for too long and are lost: their jobs are taken back",
    ),
    events.GateClosed: (
        logging.INFO,
        "Worker {worker} may claim nothing: its version is not promoted or drains, or the worker is paused or cordoned; "
        "its {running} running jobs go on",
    ),
    events.GateOpened: (logging.INFO, "Worker {worker} may claim again"),
    events.DatabaseCaveat: (logging.WARNING, "{sentence}"),
    events.DatabaseLost: (
        logging.ERROR,
        "The database does not answer ({doing}): {error}; next try in {retry_in} s",
    ),
    events.DatabaseBack: (logging.WARNING, "The database answers again; it was away for {away} s"),
    events.DatabaseMoved: (
        logging.WARNING,
        "The file with the database's URL was changed, and the database answers at the new one: {url}",
    ),
    events.MigrationWaits: (logging.WARNING, "{why} Next try in {retry_in} s"),
    events.PollOnly: (logging.WARNING, "The database cannot notify the worker, so the worker polls: {why}"),
    events.KindUnheardOf: (
        logging.WARNING,
        "A job of kind {kind} was enqueued, and neither a live worker nor a program has a handler for it: it waits for one",
    ),
    events.KindResembles: (
        logging.WARNING,
        "A job of kind {kind} was enqueued, and neither a live worker nor a program has a handler for it; did you mean {nearest}?",
    ),
    events.OptionsLeftOut: (
        logging.WARNING,
        "A job of kind {kind} was enqueued without what its handler says of {options}, since this program does not have it: "
        "say it in the call, or that the job has none, as group=(), tenant=None, key=None",
    ),
    events.QueueMade: (logging.INFO, "There was no queue {queue}, so it was made"),
    events.QueueResembles: (
        logging.WARNING,
        "There was no queue {queue}, so it was made; did you mean {nearest}?",
    ),
    events.QueueUnserved: (
        logging.WARNING,
        "No live worker serves queue {queue}, where {pending} jobs are pending",
    ),
    events.QueuesResumed: (
        logging.INFO,
        "Queues {queues} are resumed: the time is over for which they were paused",
    ),
    events.KindsResumed: (
        logging.INFO,
        "Kinds {kinds} are resumed: the time is over for which they were paused",
    ),
    events.GroupsResumed: (
        logging.INFO,
        "Groups {groups} are resumed: the time is over for which they were paused",
    ),
    events.QueueCooled: (logging.WARNING, "Queue {queue} cools down for {seconds} s: a job was throttled"),
    events.JobStarted: (logging.DEBUG, "Job {job_id} starts"),
    events.JobsRose: (logging.DEBUG, "{count} jobs of queue {queue} have waited so long that they rise"),
    events.JobsMadePending: (logging.DEBUG, "{count} scheduled jobs are pending now"),
    events.CountsFolded: (
        logging.INFO,
        "{notes} notes of counts had piled up and were summed in {seconds} s",
    ),
    events.JobsSwept: (logging.DEBUG, "{count} ended jobs were past their retention and are gone"),
    events.CronFired: (
        logging.INFO,
        "Cron {cron} fired: {enqueued} jobs enqueued, {skipped} skipped, {late} s late",
    ),
    events.CronUnreadable: (logging.ERROR, "Cron {cron} cannot be fired by this host: {error}"),
    events.CronHeldUp: (logging.ERROR, "Cron {cron} cannot fire now: {error}"),
    events.CronDeclared: (
        logging.INFO,
        "Cron {cron} is configured as its handler declares: it enqueues {kind} at {expression}",
    ),
    events.CronKept: (
        logging.WARNING,
        "What a handler declares of cron {cron} does not hold: the cron is managed by {owner}",
    ),
    events.CronUndeclarable: (
        logging.ERROR,
        "What a handler declares of cron {cron} could not be written, and is tried again: {error}",
    ),
    events.CronUndeclared: (
        logging.WARNING,
        "Cron {cron} was declared by a handler of {kind}, and no live worker has declared it for a while; it goes on "
        "firing; if its code is gone, run: forge-jobs cron delete",
    ),
    events.LeadOffered: (
        logging.WARNING,
        "Worker {worker} gives up the lead, since it cannot read crons {crons} and another worker may be able to",
    ),
    events.TokensLeased: (logging.DEBUG, "{tokens} tokens of rate limit {scope} are leased"),
    events.TokensAwaited: (logging.DEBUG, "{jobs} jobs wait for tokens of keys of rate limit {scope}"),
    events.TenantsWaiting: (
        logging.DEBUG,
        "{tenants} tenants of queue {queue} wait, one of them for {largest} jobs; the first jobs of the others have "
        "waited for {others_wait} s at most",
    ),
    events.LimitEmptied: (logging.WARNING, "Rate limit {scope} was emptied"),
    events.ChoreFailed: (logging.ERROR, "Chore {chore} failed: {error}; next try in {retry_in} s"),
}

REPEATED: Mapping[type[Event], tuple[str, ...]] = {
    events.DatabaseLost: (),
    events.OutcomesParted: ("error",),
    events.OutcomesHeld: ("error",),
    events.UnknownKind: ("queue", "kind"),
    events.CodecMissing: ("kind", "error"),
    events.MigrationWaits: (),
    events.PollOnly: (),
    events.QueueUnserved: ("queue",),
    events.PinnedUnserved: ("queue", "version"),
    events.QueueCooled: ("queue",),
    events.ChoreFailed: ("chore",),
    events.CronUnreadable: ("cron",),
    events.CronHeldUp: ("cron",),
    events.CronUndeclarable: ("cron",),
    events.SubscriberFailed: ("subscriber",),
    events.HookFailed: ("hook",),
    events.HookWaits: ("hook",),
    events.CancelRefused: ("kind",),
    events.GraceLost: (),
    events.ExitContained: ("error", "where"),
    events.SignalTaken: ("signal",),
}
"""Events that come again and again while one thing is wrong, and the facts that name the thing."""

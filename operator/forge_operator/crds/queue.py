"""The custom resource definition of ForgeQueue."""

from forge_operator import conditions
from forge_operator.crds.definition import Schema, column, condition_column, definition
from forge_operator.crds.status import conditions as conditions_schema
from forge_operator.crds.status import group, listed, number, text, timestamp, whole
from forge_operator.specs.queue import ForgeQueue, QueueSpec
from forge_operator.specs.section import schema_of

VERSION_STATES = ("Pending", "Ramping", "Current", "Draining", "Drained", "Retired", "Failed")

COLUMNS = (
    condition_column("Ready", "Ready", "status", description="Whether what is asked for is so."),
    condition_column("Reason", "Ready", "reason", description="Why Ready is as it is."),
    column("Version", ".status.currentVersion.version", description="The version that serves."),
    column("Target", ".status.targetVersion.version", description="The version that is asked for."),
    column(
        "Workers", ".status.readyReplicas", "integer", description="Pods that are ready, of all versions."
    ),
    column("Desired", ".status.desiredReplicas", "integer", description="Pods that there should be."),
    column("Backlog", ".status.backlog.ready", "integer", description="Jobs that could start now."),
    column(
        "Oldest",
        ".status.backlog.oldestAgeSeconds",
        "integer",
        description="Seconds the oldest of them has waited.",
    ),
    condition_column(
        "Paused",
        "Paused",
        "status",
        description="Whether no job is started, or the operator leaves it alone.",
    ),
    column("Age", ".metadata.creationTimestamp", "date", description="When the object was made."),
    column("Queue", ".status.queueName", description="The queue's name in the database.", wide=True),
    column(
        "Limit",
        ".spec.concurrency.limit",
        "integer",
        description="Jobs in progress at once, over the whole cluster.",
        wide=True,
    ),
    column("ID", ".status.currentVersion.id", description="The id of the version that serves.", wide=True),
    condition_column(
        "Scaling",
        "ScalingActive",
        "reason",
        description="Whether pods follow the work, or why not: Observing, Fallback, StaleSignal.",
        wide=True,
    ),
)


def queue_definition() -> Schema:
    """Return the CustomResourceDefinition of ForgeQueue."""
    return definition(
        kind="ForgeQueue",
        short_name="fq",
        description="A queue: its configuration in the database, and the workers that serve it.",
        spec=schema_of(QueueSpec),
        status=_status(),
        columns=COLUMNS,
        rules=ForgeQueue.RULES,
        scale={
            "specReplicasPath": ".spec.workers.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
        selectable=[".spec.queueName"],
    )


def _status() -> Schema:
    return {
        "type": "object",
        "properties": {
            "observedGeneration": whole("The generation of the object that all this is about."),
            "queueName": text("The queue's name in the database, once it is configured there."),
            "replicas": whole("Pods of the current version that there are."),
            "readyReplicas": whole("Pods that are ready, of all versions."),
            "desiredReplicas": whole("Pods that there should be, draining versions not counted."),
            "selector": text("The labels of the current version's pods, for autoscalers."),
            "lastSyncTime": timestamp("When the database was last made to say what the object says."),
            "lastScaleTime": timestamp("When the number of pods was last changed."),
            "currentVersion": _version_reference("The version that serves."),
            "targetVersion": _version_reference("The version that is asked for."),
            "versions": listed("The versions, the newest first.", _version(), key="id", most=64),
            "backlog": _backlog(),
            "scaling": _scaling(),
            "conditions": conditions_schema(conditions.OF_QUEUES),
        },
    }


def _version_reference(description: str) -> Schema:
    return group(
        description,
        id=text("Its id: eight letters and digits."),
        version=text("What spec.workers.version said."),
        deployment=text("The name of its Deployment."),
        since=timestamp("Since when it has been that."),
    )


def _version() -> Schema:
    return group(
        "A version.",
        required=("id", "version", "state"),
        id=text("Its id: eight letters and digits."),
        version=text("What spec.workers.version said."),
        deployment=text("The name of its Deployment."),
        state={
            "description": "Where it is in its life.",
            "type": "string",
            "enum": list(VERSION_STATES),
        },
        weightPercent=whole("Its share of the slots."),
        replicas=whole("Pods that there are."),
        readyReplicas=whole("Pods that are ready."),
        inProgress=whole("Jobs that its workers run."),
        lastCurrentAt=timestamp("When it last became the one that serves."),
        drainStartedAt=timestamp("When it last got its last job."),
        drainedAt=timestamp("When it was proven to have nothing left to do."),
    )


def _backlog() -> Schema:
    return group(
        "What waits in all queues that the workers serve.",
        ready=whole("Jobs that could start now. Counted up to a limit, so it may be more."),
        held=whole("Jobs that cannot start, because the queue is paused or at its limit."),
        inProgress=whole("Jobs that run."),
        oldestAgeSeconds=whole("How long the oldest job that could start has waited."),
        observedAt=timestamp("When this was counted, by the database's clock."),
    )


def _scaling() -> Schema:
    return group(
        "Why there are as many pods as there are: the last decision, and what it was made from.",
        replicas=whole("The decision: pods that there should be."),
        reason=text("What decided, in one word."),
        message=text("What decided, in a sentence with its numbers."),
        decidedAt=timestamp("When."),
        wanted=whole("Pods by the work alone, before limits and windows."),
        inputs=group(
            "What it was made from.",
            backlog=whole("Jobs that could start."),
            inProgress=whole("Jobs that ran."),
            dueSoon=whole("Jobs due within prewarmSeconds."),
            oldestAgeSeconds=number("How long the oldest job that could start had waited."),
            arrivalsPerSecond=number("Jobs that came in a second, smoothed."),
            serviceSeconds=number("How long a job takes, smoothed."),
            readyReplicas=whole("Pods that were ready."),
            slots=whole("Jobs that a pod runs at once."),
            targetLatencySeconds=whole("How long a job should wait at most."),
            concurrencyLimit=whole("Jobs that may run at once, if limited."),
            rateLimitPerSecond=number("Jobs that may start in a second, if limited."),
            connectionsLeft=whole("Connections that the database had left for more pods, if counted."),
            observedAt=timestamp("When they were read, by the database's clock."),
        ),
    )

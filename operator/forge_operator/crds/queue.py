"""The custom resource definition of ForgeQueue."""

from forge_operator import conditions
from forge_operator.crds.definition import Schema, column, condition_column, definition
from forge_operator.crds.status import condition_list, group, listed, number, text, timestamp, whole
from forge_operator.specs.queue import ForgeQueue, QueueSpec
from forge_operator.specs.section import schema_of

VERSION_STATES = ("Pending", "Ramping", "Current", "Draining", "Drained", "Retired", "Failed")

COLUMNS = (
    condition_column(
        "Ready",
        "Ready",
        "status",
        description="Whether the object is in the database and its workers serve it.",
    ),
    condition_column("Reason", "Ready", "reason", description="The reason for the status of Ready."),
    column("Version", ".status.currentVersion.version", description="The version that serves."),
    column("Target", ".status.targetVersion.version", description="The version that the spec requests."),
    column(
        "Workers", ".status.readyReplicas", "integer", description="Pods that are ready, of all versions."
    ),
    column("Desired", ".status.desiredReplicas", "integer", description="Pods that the operator wants."),
    column("Backlog", ".status.backlog.ready", "integer", description="Jobs that could start now."),
    column(
        "Oldest",
        ".status.backlog.oldestAgeSeconds",
        "integer",
        description="How long the oldest job that could start has waited, in seconds.",
    ),
    condition_column(
        "Paused",
        "Paused",
        "status",
        description="Whether the queue is paused, or the operator does not touch the object.",
    ),
    column("Age", ".metadata.creationTimestamp", "date", description="When the object was created."),
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
        description="How the number of pods is decided: Scaling, FixedReplicas, Observing, Fallback, StaleSignal.",
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
            "operator": text(
                "The operator that manages the object: the namespace and the name of its Lease."
            ),
            "rival": text(
                "Another operator that watches the object. It takes over when the present one is not installed any more."
            ),
            "observedGeneration": whole("The generation of the object that this status describes."),
            "queueName": text("The queue's name in the database, once it is configured there."),
            "replicas": whole("Pods of the current version."),
            "readyReplicas": whole("Pods that are ready, of all versions."),
            "desiredReplicas": whole("Pods that the operator wants, without those of draining versions."),
            "selector": text("The labels of the current version's pods, for autoscalers."),
            "lastSyncTime": timestamp("When the object's configuration was last written to the database."),
            "lastScaleTime": timestamp("When the number of pods was last changed."),
            "currentVersion": _version_reference(
                "The version that serves.", since="When it last began to serve."
            ),
            "targetVersion": _version_reference(
                "The version that the spec requests.", since="When the version was started."
            ),
            "versions": listed("The versions, the newest first.", _version(), key="id", most=64),
            "backlog": _backlog(),
            "scaling": _scaling(),
            "conditions": condition_list(conditions.OF_QUEUES),
        },
    }


def _version_reference(description: str, *, since: str) -> Schema:
    return group(
        description,
        id=text("The id of the version: eight letters and digits."),
        version=text("The value of spec.workers.version."),
        deployment=text("The name of the Deployment."),
        since=timestamp(since),
    )


def _version() -> Schema:
    return group(
        "A version.",
        required=("id", "version", "state"),
        id=text("The id of the version: eight letters and digits."),
        version=text("The value of spec.workers.version."),
        deployment=text("The name of the Deployment."),
        state={
            "description": "The state of the version.",
            "type": "string",
            "enum": list(VERSION_STATES),
        },
        weightPercent=whole("The version's share of the slots, in percent."),
        replicas=whole("Pods of the version."),
        readyReplicas=whole("Pods that are ready."),
        inProgress=whole("Jobs that its workers run."),
        pinned=whole("Jobs that have begun on it and that no other version may go on with."),
        lastCurrentAt=timestamp("When it last became the one that serves."),
        drainStartedAt=timestamp("When it stopped claiming new jobs."),
        drainedAt=timestamp("When it was proven to have no jobs left."),
    )


def _backlog() -> Schema:
    return group(
        "The jobs in all queues that the workers serve.",
        ready=whole("Jobs that could start now. Counted up to a limit, so there may be more."),
        held=whole(
            "Jobs that cannot start, because the queue or their kind is paused, or the queue is at its limit."
        ),
        inProgress=whole("Jobs in progress."),
        oldestAgeSeconds=whole("How many seconds the oldest job that could start has waited."),
        observedAt=timestamp("When this was counted, by the database's clock."),
    )


def _scaling() -> Schema:
    return group(
        "The last scaling decision, and its inputs.",
        replicas=whole("The number of pods that was decided on."),
        reason=text("The reason for the decision, in one word."),
        message=text("The reason for the decision, as a sentence with its numbers."),
        decidedAt=timestamp("When the decision was made."),
        wanted=whole("The number of pods that the work alone needs, before limits and stabilization."),
        inputs=group(
            "The inputs of the decision.",
            backlog=whole("Jobs that could start."),
            inProgress=whole("Jobs in progress."),
            dueSoon=whole("Jobs due within prewarmSeconds."),
            oldestAgeSeconds=number("How many seconds the oldest job that could start had waited."),
            arrivalsPerSecond=number("Jobs enqueued per second, smoothed."),
            serviceSeconds=number("How many seconds a job takes, smoothed."),
            readyReplicas=whole("Pods that were ready."),
            slots=whole("Jobs that a pod runs at once."),
            targetLatencySeconds=whole("How many seconds a job should wait at most."),
            concurrencyLimit=whole("Jobs that may run at once, if limited."),
            rateLimitPerSecond=number("Jobs that may start per second, if limited."),
            connectionsLeft=whole("Connections that the database had left for more pods, if counted."),
            observedAt=timestamp("When the inputs were read, by the database's clock."),
        ),
    )

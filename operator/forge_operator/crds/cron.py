"""The custom resource definition of ForgeCron."""

from forge_operator import conditions
from forge_operator.crds.definition import Schema, column, condition_column, definition
from forge_operator.crds.status import condition_list, text, timestamp, whole
from forge_operator.specs.cron import CronSpec
from forge_operator.specs.section import schema_of

COLUMNS = (
    column("Schedule", ".spec.schedule", description="When a job is enqueued."),
    column("TimeZone", ".spec.timeZone", description="The time zone of the schedule."),
    column("Queue", ".spec.job.queue", description="The queue that the job is enqueued to."),
    column("Kind", ".spec.job.kind", description="The job's kind."),
    column(
        "Suspend",
        ".spec.suspend",
        "boolean",
        description="Whether the cron is suspended: nothing is enqueued.",
    ),
    column("Last", ".status.lastScheduleTime", "date", description="When a job was last enqueued."),
    condition_column(
        "Ready",
        "Ready",
        "status",
        description="Whether the cron is in the database as the object describes it.",
    ),
    column("Age", ".metadata.creationTimestamp", "date", description="When the object was created."),
    # As text: kubectl shows a date that is yet to come as invalid.
    column("Next", ".status.nextScheduleTime", description="When the next job is enqueued.", wide=True),
    column(
        "Skipped",
        ".status.skipped",
        "integer",
        description="Fire times that concurrencyPolicy Forbid, or a full group, skipped.",
        wide=True,
    ),
    condition_column(
        "Reason", "Ready", "reason", description="The reason for the status of Ready.", wide=True
    ),
)


def cron_definition() -> Schema:
    """Return the CustomResourceDefinition of ForgeCron."""
    return definition(
        kind="ForgeCron",
        short_name="fc",
        description="A cron: it enqueues a job by the clock, whether or not the operator runs.",
        spec=schema_of(CronSpec),
        status=_status(),
        columns=COLUMNS,
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
            "cronName": text("The cron's name in the database, once it is configured there."),
            "nextScheduleTime": timestamp("When the next job is enqueued."),
            "lastScheduleTime": timestamp("When a job was last enqueued."),
            "skipped": whole(
                "How many fire times were skipped, because the previous job had not ended, or the group drops what it has no place for."
            ),
            "lastSyncTime": timestamp("When the object's configuration was last written to the database."),
            "conditions": condition_list(conditions.OF_CRONS),
        },
    }

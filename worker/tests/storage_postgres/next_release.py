"""A release that is not made yet: what tests migrate a database to that is at the schema of today.

Its names are such that no migration that is made one day has them.
"""

from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.migrate import Migration, migrations

TODAY = migrations("postgres")

KNOWN = TODAY[-1].number

LOCKS_READY = """
ALTER TABLE {schema}.ready ADD COLUMN made_up text;
ALTER TABLE {schema}.tally ADD COLUMN made_up text;
"""

# Who enqueues calls a new function, which reads a new table. Who works writes another, by a new view.
MAKES_TABLES = """
CREATE TABLE {schema}.made_up_quota (queue_id integer PRIMARY KEY, jobs bigint NOT NULL);
CREATE TABLE {schema}.made_up_spent (queue_id integer NOT NULL, jobs bigint NOT NULL);
CREATE VIEW {schema}.made_up_quota_left AS
SELECT queue.id AS queue_id, coalesce(made_up_quota.jobs, 1000) AS jobs
FROM {schema}.queue LEFT JOIN {schema}.made_up_quota ON made_up_quota.queue_id = queue.id;

CREATE FUNCTION {schema}.made_up_quota_of(queue_id integer) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT jobs FROM {schema}.made_up_quota WHERE made_up_quota.queue_id = $1
$$;
CREATE FUNCTION {schema}.made_up_look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.made_up_quota_of(NEW.queue_id);
    RETURN NEW;
END
$$;
CREATE TRIGGER made_up_look BEFORE INSERT ON {schema}.job FOR EACH ROW EXECUTE FUNCTION {schema}.made_up_look();

CREATE FUNCTION {schema}.made_up_spend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {schema}.made_up_spent SELECT made_up_quota_left.queue_id, 1 FROM {schema}.made_up_quota_left WHERE made_up_quota_left.queue_id = NEW.queue_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER made_up_spend AFTER INSERT ON {schema}.finished FOR EACH ROW EXECUTE FUNCTION {schema}.made_up_spend();
"""

NEEDED = {
    Purpose.ENQUEUER: {"made_up_quota": "SELECT"},
    Purpose.WORKER: {"made_up_quota": "SELECT", "made_up_spent": "INSERT", "made_up_quota_left": "SELECT"},
    Purpose.READER: {"made_up_quota": "SELECT", "made_up_spent": "SELECT", "made_up_quota_left": "SELECT"},
}
"""What each purpose has to be granted on what that makes."""

MAKES_AN_INDEX = """-- concurrently
CREATE INDEX CONCURRENTLY IF NOT EXISTS made_up_index ON {schema}.scheduled (queue_id, priority);
"""

AFTER_THE_INDEX = "ALTER TABLE {schema}.made_up_quota ADD COLUMN IF NOT EXISTS made_up text;"

NEXT = (
    *TODAY,
    Migration(KNOWN + 1, "notes", LOCKS_READY),
    Migration(KNOWN + 2, "quotas", MAKES_TABLES),
    Migration(KNOWN + 3, "made_up_index", MAKES_AN_INDEX),
    Migration(KNOWN + 4, "quota_notes", AFTER_THE_INDEX),
)
"""All that the next release knows."""

BEFORE_THE_INDEX = KNOWN + 2

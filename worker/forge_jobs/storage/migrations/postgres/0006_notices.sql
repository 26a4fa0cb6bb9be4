-- Nothing to do here: PostgreSQL has NOTIFY. In SQLite a table of notices takes its place.
SELECT 1;

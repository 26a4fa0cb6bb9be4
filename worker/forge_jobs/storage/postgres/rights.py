"""The rights that a role of the server needs, for each purpose of a program.

One role that owns everything is enough. A role with less is granted these rights, and `inherited_rights` sees to what later migrations make.
"""

import re
from collections.abc import Mapping

from forge_jobs.storage.interface.schema import Purpose

_WORKED_ON = (
    "blocked",
    "claimed",
    "cron",
    "done_together",
    "ended_node",
    "era",
    "failure",
    "finished",
    "fire",
    "flow",
    "flow_edge",
    "flow_node",
    "group_front",
    "handed_in",
    "idle",
    "intervention",
    "job",
    "job_group",
    "job_key",
    "job_tag",
    "key_state",
    "kind",
    "leader",
    "minute_statistic",
    "occupant",
    "operation",
    "paused_group",
    "paused_kind",
    "permit",
    "pin",
    "progress",
    "queue",
    "rate_key",
    "rate_limit",
    "ready",
    "revision",
    "saved_state",
    "scheduled",
    "settled_permit",
    "signal",
    "slot",
    "spend_log",
    "step",
    "tally",
    "tenant_clock",
    "tenant_turn",
    "tenant_weight",
    "time_limit",
    "unique_hold",
    "unsettled",
    "waiting",
    "worker",
    "worker_label",
    "worker_version",
)
_LOOKED_AT = (
    "depth",
    "handled",
    "jobs",
    "migration",
    "operator",
    "pinned_work",
    "scaling_signal",
    "unhandled",
    "work",
)

RIGHTS: Mapping[Purpose, Mapping[str, str]] = {
    Purpose.ENQUEUER: {
        "blocked": "INSERT, SELECT, UPDATE, DELETE",
        "group_front": "INSERT, SELECT, DELETE",
        "idle": "SELECT",
        "job": "INSERT, SELECT (id)",
        "job_group": "INSERT, SELECT, UPDATE",
        "job_key": "INSERT, SELECT",
        "job_tag": "INSERT",
        "kind": "SELECT",
        "migration": "SELECT",
        "occupant": "INSERT, SELECT",
        "paused_group": "SELECT",
        "paused_kind": "SELECT",
        "queue": "SELECT",
        "ready": "INSERT, SELECT",
        "scheduled": "INSERT",
        "tally": "INSERT",
        "tenant_clock": "SELECT",
        "tenant_turn": "INSERT, SELECT, DELETE",
        "tenant_weight": "SELECT",
        "time_limit": "INSERT",
        "unique_hold": "INSERT, SELECT, UPDATE",
        "unsettled": "INSERT",
    },
    Purpose.WORKER: dict.fromkeys(_WORKED_ON, "SELECT, INSERT, UPDATE, DELETE")
    | dict.fromkeys(_LOOKED_AT, "SELECT"),
    Purpose.READER: dict.fromkeys((*_WORKED_ON, *_LOOKED_AT), "SELECT"),
    Purpose.SIGNALLER: {
        "finished": "SELECT (job_id)",
        "intervention": "INSERT (job_id, at, what, by_whom, note)",
        "job": "SELECT (id, kind, codec, replaced)",
        "job_key": "SELECT (job_id, kind, key)",
        "job_tag": "SELECT (job_id, tag)",
        "kind": "SELECT",
        "migration": "SELECT",
        "queue": "SELECT",
        "revision": "SELECT (origin)",
    },
}
"""On tables and views."""

SEQUENCE = "job_id_seq"
"""The sequence from which whoever enqueues takes ids; other ids come by themselves."""

FUNCTIONS = (
    "admit",
    "await_flows",
    "begin_wait",
    "cancel_flow",
    "coming_turn",
    "configured",
    "date_skipped",
    "differs",
    "end_log",
    "end_nodes",
    "end_noted_nodes",
    "end_turns",
    "end_waiting_nodes",
    "end_wait",
    "end_waits_for",
    "enqueue",
    "enqueue_bytes",
    "forget_reports",
    "hand_on",
    "hand_over",
    "handed_back",
    "has_unclaimed",
    "is_in_circle",
    "is_list",
    "join_groups",
    "keeps_places",
    "leave_groups",
    "let_in",
    "links_of",
    "logged_keys",
    "meet",
    "merged",
    "micros",
    "move_front",
    "note_ended_node",
    "park",
    "payload_differs",
    "place",
    "places_left",
    "remove",
    "put_job",
    "rarest",
    "fold_spends",
    "free_nodes",
    "retry_flow",
    "rewrite_job",
    "say",
    "scaling_signal_of",
    "settle",
    "send",
    "settle_next",
    "signal",
    "signal_bytes",
    "settle_nodes",
    "stand_in_line",
    "summed",
    "switched",
    "take_turns",
    "taken_turn",
    "tell",
    "wait_for",
    "wake",
    "withdraw",
    "write_tags",
)
"""They do only what the role that calls them may do by itself."""

SIGNALLING = ("signal", "signal_bytes")
"""Those that whoever sends signals calls."""

PROCEDURE = "signal_as_owner"
"""It sends signals by the rights of the owner. Only who is granted to may call it."""

VERBS = {
    Purpose.ENQUEUER: "who enqueues needs",
    Purpose.WORKER: "a worker needs",
    Purpose.READER: "who looks needs",
    Purpose.SIGNALLER: "who sends signals needs",
}


def grants(schema: str, role: str, purpose: Purpose) -> list[str]:
    """Return the statements that let a role do what the purpose needs, and nothing else. Both names are SQL text."""
    by_rights: dict[str, list[str]] = {}
    for relation, rights in RIGHTS[purpose].items():
        by_rights.setdefault(rights, []).append(relation)
    on = [f"USAGE ON SCHEMA {schema}"]
    on += [
        f"{rights} ON {', '.join(f'{schema}.{relation}' for relation in relations)}"
        for rights, relations in by_rights.items()
    ]
    if purpose is Purpose.SIGNALLER:
        on += [f"EXECUTE ON FUNCTION {schema}.{function}" for function in SIGNALLING]
        on.append(f"EXECUTE ON PROCEDURE {schema}.{PROCEDURE}")
        return [f"GRANT {right} TO {role};" for right in on]
    if purpose is not Purpose.READER:
        on.append(f"USAGE ON SEQUENCE {schema}.{SEQUENCE}")
    on.append(f"EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema}")
    return [f"GRANT {right} TO {role};" for right in on]


LACKING = """
SELECT needed.relation, needed.privilege
FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS needed (relation, of_column, privilege, place)
LEFT JOIN pg_catalog.pg_namespace ON pg_namespace.nspname = $1
LEFT JOIN pg_catalog.pg_class ON pg_class.relnamespace = pg_namespace.oid AND pg_class.relname = needed.relation
WHERE NOT coalesce(
    has_schema_privilege(pg_namespace.oid, 'USAGE') AND CASE
        WHEN needed.of_column IS NULL THEN has_table_privilege(pg_class.oid, needed.privilege)
        ELSE has_column_privilege(pg_class.oid, needed.of_column, needed.privilege)
    END, false)
ORDER BY needed.place
"""
"""The rights among those that are needed which the current role lacks. It looks at catalogs only, which everybody may read."""


def needed(purpose: Purpose) -> list[tuple[str, str | None, str]]:
    """Return the rights (relation, column or None, privilege) on tables and views, one by one."""
    return [
        (relation, column, privilege)
        for relation, rights in RIGHTS[purpose].items()
        for privilege, columns in re.findall(r"([A-Z]+)(?: \(([\w, ]+)\))?", rights)
        for column in (columns.split(", ") if columns else [None])
    ]


MAY_SIGNAL = """
SELECT coalesce(has_schema_privilege(pg_namespace.oid, 'USAGE') AND has_function_privilege(pg_proc.oid, 'EXECUTE'), false)
FROM pg_catalog.pg_proc JOIN pg_catalog.pg_namespace ON pg_namespace.oid = pronamespace
WHERE nspname = $1 AND proname = $2
"""
"""Whether the current role may call this procedure."""


def missing(sentence: str, schema: str) -> str | None:
    """Return the right that an error of the server says is missing, in whatever language; None when the
    error is about something else.
    """
    words = re.findall(r"[^\s\"'«»„“”,.]+", sentence)
    if "database" in words:  # whose name may be that of a table
        return None
    if schema in words:
        return f"USAGE on schema {schema!r}"
    for word in words:
        if needs := [
            f"{VERBS[purpose]} {RIGHTS[purpose][word]}" for purpose in Purpose if word in RIGHTS[purpose]
        ]:
            return f"a right on table {word!r} ({', '.join(needs)})"
        if word == SEQUENCE:
            return f"USAGE on sequence {word!r}"
        if word == PROCEDURE:
            return f"EXECUTE on procedure {word!r} ({VERBS[Purpose.SIGNALLER]} it)"
        if word in FUNCTIONS:
            return f"EXECUTE on function {word!r}"
    return None

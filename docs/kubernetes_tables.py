"""Writes the tables of the pages about Kubernetes: fields, columns, conditions and reasons, from what declares them.

    python docs/kubernetes_tables.py

A table stands between `<!-- table: NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from forge_operator.conditions import OF_CRONS, OF_QUEUES, REASONS, Condition, ConditionReason
from forge_operator.crds.cron import cron_definition
from forge_operator.crds.queue import queue_definition

PAGES = sorted(Path(__file__).parent.glob("kubernetes*.md"))
TABLE = re.compile(r"(<!-- table: (?P<name>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """The pages are as `renewed` says."""
    for page in PAGES:
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(page: str) -> str:
    """Return the page with all of its tables made anew."""
    return TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", page)


def fields(definition: dict[str, Any], part: str) -> str:
    """Return the table of all fields below `spec` or `status`."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    rows = [
        (f"`{path}`", shape(field, is_required), default(field), sentence(field))
        for path, field, is_required in walk(schema, "")
    ]
    return table(("Field", "What it may be", "Default", "Meaning"), rows)


def walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield every field below a schema with its path, and whether it has to be said."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        here = f"{path}{name}"
        yield here, field, name in required
        yield from walk(field, f"{here}.")
        if "properties" in field.get("items", {}):
            yield from walk(field["items"], f"{here}[].")


def shape(field: dict[str, Any], is_required: bool) -> str:
    """Return what a field may be, in a few words."""
    if "enum" in field:
        said = ", ".join(f"`{each}`" for each in field["enum"])
    else:
        items = field.get("items", {}).get("type")
        said = f"{items}s in a list" if items else str(field.get("type", "anything"))
    bounds = [f"{field[key]:,}" if key in field else "" for key in ("minimum", "maximum")]
    if all(bounds):
        said += f", {bounds[0]} to {bounds[1]}"
    elif any(bounds):
        said += f", at least {bounds[0]}" if bounds[0] else f", at most {bounds[1]}"
    return f"{said}; **required**" if is_required else said


def default(field: dict[str, Any]) -> str:
    """Return what is so when nothing is said."""
    found = field.get("default")
    if found is None or isinstance(found, dict | list):  # of a group: its fields say it one by one
        return ""
    return f"`{str(found).lower()}`" if isinstance(found, bool) else f"`{found}`"


def sentence(field: dict[str, Any]) -> str:
    """Return what a field means."""
    return str(field.get("description", "")).replace("|", "\\|")


def columns(definition: dict[str, Any]) -> str:
    """Return the table of what `kubectl get` shows."""
    found = definition["spec"]["versions"][0]["additionalPrinterColumns"]
    rows = [
        (each["name"] + (" (`-o wide`)" if each.get("priority") else ""), each.get("description", ""))
        for each in found
    ]
    return table(("Column", "Meaning"), rows)


def conditions() -> str:
    """Return the table of the conditions."""
    rows = []
    for each in Condition:
        owners = [kind for kind, has in (("ForgeQueue", OF_QUEUES), ("ForgeCron", OF_CRONS)) if each in has]
        rows.append((f"`{each.value}`", ", ".join(owners), each.meaning))
    return table(("Condition", "Of", "When it is True"), rows)


def reasons() -> str:
    """Return the table of the reasons, with the conditions that give them."""
    rows = []
    for reason in ConditionReason:
        given = [f"{each.value}={found[reason]}" for each, found in REASONS.items() if reason in found]
        rows.append((f"`{reason.value}`", ", ".join(given), reason.meaning))
    return table(("Reason", "In", "Meaning"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown has it."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


TABLES: dict[str, Callable[[], str]] = {
    "what a ForgeQueue says": lambda: fields(queue_definition(), "spec"),
    "what is answered of a ForgeQueue": lambda: fields(queue_definition(), "status"),
    "columns of ForgeQueue": lambda: columns(queue_definition()),
    "what a ForgeCron says": lambda: fields(cron_definition(), "spec"),
    "what is answered of a ForgeCron": lambda: fields(cron_definition(), "status"),
    "columns of ForgeCron": lambda: columns(cron_definition()),
    "conditions": conditions,
    "reasons": reasons,
}
"""What makes each table, by the name in its mark."""


if __name__ == "__main__":
    main()

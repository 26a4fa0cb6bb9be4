"""Flows as pictures: text that Mermaid or Graphviz draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forge_jobs.model.flow import Role

if TYPE_CHECKING:
    from forge_jobs.handlers.flow import Node


def mermaid(nodes: "Sequence[Node]") -> str:
    """Return the nodes as a graph for Mermaid."""
    numbers = {node: f"n{number}" for number, node in enumerate(nodes)}
    lines = ["flowchart TD"]
    lines += [f'    {numbers[node]}["{_escaped(_label(node))}"]' for node in nodes]
    lines += [f"    {numbers[before]} --> {numbers[node]}" for node in nodes for before in node.after]
    return "\n".join(lines) + "\n"


def dot(name: str, nodes: "Sequence[Node]") -> str:
    """Return the nodes as a graph for Graphviz."""
    numbers = {node: f"n{number}" for number, node in enumerate(nodes)}
    lines = [f"digraph {_quoted(name)} {{"]
    lines += [f"    {numbers[node]} [label={_quoted(_label(node))}];" for node in nodes]
    lines += [f"    {numbers[before]} -> {numbers[node]};" for node in nodes for before in node.after]
    return "\n".join([*lines, "}"]) + "\n"


def _label(node: "Node") -> str:
    return node.name if node.plan.role is Role.CALL else f"{node.name} ({node.plan.role.value})"


def _escaped(text: str) -> str:
    return "".join(one if one.isalnum() or one in " ._-()[]" else f"#{ord(one)};" for one in text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""What nodes of a flow get of each other: which argument, and whether its type fits. Nothing here runs anything."""

import inspect
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.arguments import resolved_hints
from forge_jobs.handlers.options import Options
from forge_jobs.model.flow import LONGEST_NAME, Role
from forge_jobs.rules.words import count

if TYPE_CHECKING:
    from forge_jobs.handlers.flow import Node

SCALARS = (str, int, float, bool, bytes, type(None))
LISTS = (list, tuple, set, frozenset, Sequence)
MAPPINGS = (dict, Mapping)


def named_as(name: object, what: str) -> str:
    """Return the name of a flow or a node. Raises InvalidInput."""
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidInput(
            f"{what} is named {name!r}, allowed is a text of 1 to {LONGEST_NAME} characters on one line."
        )
    return name


def inputs_of(node: "Node") -> "dict[Node, str]":
    """Return, for each node on which it depends, the argument that gets what that one returned; "" where none does.

    Raises InvalidInput when there are fewer arguments than that.
    """
    fed = [before for before in node.after if before is not node.chooser]
    free = node.free()
    into = dict.fromkeys(node.after, "")
    if node.plan.collects is not None or node.is_callback or not free:
        return into
    apart = [before for before in fed if before not in node.joint]
    sources = len(apart) + bool(node.joint)
    if node.plan.item is not None and sources > 1:
        raise InvalidInput(f"Node {node.name!r} gets the lists of {sources} nodes, allowed is one.")
    if node.plan.item is not None:
        return into | dict.fromkeys(fed, node.plan.item)
    if sources > len(free):
        raise InvalidInput(
            f"Node {node.name!r} depends on {count(sources, 'node')} and its function takes "
            f"{count(len(free), 'more argument')}: {', '.join(free)}."
        )
    into |= dict.fromkeys(node.joint, free[0])
    return into | dict(zip(apart, free[bool(node.joint) :], strict=False))


def fed_by(node: "Node") -> "list[Node]":
    """Return those of the nodes on which it depends of which its function gets what they returned. Raises InvalidInput."""
    if node.plan.collects is not None:
        return node.after
    return [before for before, name in inputs_of(node).items() if name]


def check_inputs(node: "Node") -> None:
    """Raise InvalidInput when a node does not get what its function takes, or its job is to be placed by what it gets too late."""
    arguments = node.handler.arguments
    into = inputs_of(node)
    _require_known(node, {*into.values(), node.plan.collects, *node.plan.into, node.plan.item})
    if node.after:
        fed = {
            *into.values(),
            *node.arguments,
            *arguments.defaults,
            node.plan.collects,
            *node.plan.into,
            node.plan.item,
        }
        if lacking := [name for name in arguments.names if name not in fed]:
            raise InvalidInput(
                f"Node {node.name!r} is not given {', '.join(lacking)}, allowed is to give all."
            )
    for before, name in into.items():
        given = returns(before)
        if node.plan.item is not None and before is not node.chooser:
            if not _may_be_list(given):
                raise InvalidInput(
                    f"Node {node.name!r} gets the items of what {before.name!r} returns, which is {_shown(given)}, "
                    "allowed is a list."
                )
            given = (typing.get_args(given) or (Any,))[0]
            name = node.plan.item
        if name and not fits(given, arguments.hints.get(name, Any)):
            raise InvalidInput(
                f"Node {node.name!r} gets {_shown(given)} from {before.name!r} as {name}, "
                f"allowed is {_shown(arguments.hints[name])}."
            )


def _require_known(node: "Node", received: Collection[str | None]) -> None:
    """Raise InvalidInput when the groups or the tenant of its job are a function of an argument that it receives when it begins, or
    that is another one for each item.
    """
    handler, said = node.handler, Options.given(node.options)
    grouping = said.over(handler.defaults).group
    fairness = handler.fairness if said.tenant is None and "tenant" not in said.none else None
    for by in (grouping.function if grouping else None, fairness.function if fairness else None):
        if by is None:
            continue
        late = [
            name for name in (handler.arguments.names if by.takes_all else by.arguments) if name in received
        ]
        if late:
            raise InvalidInput(
                f"{by.option} of node {node.name!r} is a function of {late[0]!r}, which is not known until it begins, "
                "allowed are arguments that the node is given, or an option that is no function."
            )


def returns(node: "Node") -> Any:
    """Return the type of what a node returns, as far as it is known; Any where it is not."""
    function = node.handler.__wrapped__
    annotation = getattr(function, "__annotations__", {}).get("return", inspect.Parameter.empty)
    returned = inspect.Parameter("returned", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    try:
        hint = resolved_hints(function, [returned])["returned"]
    except InvalidInput:
        return Any
    if hint is None or hint is type(None):
        return Any  # another node may answer for it
    if node.plan.role is Role.MAP:
        return types.GenericAlias(list, (hint,))
    without_none = _without_none(hint)
    if node.plan.role is Role.FILTER_MAP:
        return types.GenericAlias(list, (without_none,))
    return without_none if node.plan.role is Role.REPEAT else hint


def fits(given: Any, wanted: Any) -> bool:
    """Whether a value of the one type may be one of the other. Only what is plainly wrong is not: a text for a number, a number for
    a list. What objects are made of is found out when they are.
    """
    if Any in (given, wanted) or object in (given, wanted):
        return True
    if _is_union(given):
        return any(fits(one, wanted) for one in typing.get_args(given) if one is not type(None))
    if _is_union(wanted):
        return any(fits(given, one) for one in typing.get_args(wanted))
    one, other = typing.get_origin(given) or given, typing.get_origin(wanted) or wanted
    families = [SCALARS, LISTS, MAPPINGS]
    of_one = next((family for family in families if one in family), None)
    of_other = next((family for family in families if other in family), None)
    if of_one is None or of_other is None:
        return True
    if of_one is not of_other:
        return False
    if of_one is SCALARS:
        return one is other or (one, other) == (int, float)
    inner, outer = typing.get_args(given), typing.get_args(wanted)
    if one is list and other is list and inner and outer:
        return fits(inner[0], outer[0])
    return True


def _may_be_list(given: Any) -> bool:
    return fits(given, list)


def _without_none(hint: Any) -> Any:
    if not _is_union(hint):
        return hint
    left = [one for one in typing.get_args(hint) if one is not type(None)]
    return left[0] if len(left) == 1 else hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _shown(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)

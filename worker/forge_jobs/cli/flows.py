"""`forge-jobs flows`: jobs that depend on each other."""

from collections.abc import Sequence
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.client.flows import RetriedFlows
from forge_jobs.errors import InvalidInput
from forge_jobs.model.flow import FlowNode, FlowState, FlowStatus
from forge_jobs.rules.words import first_line

group = CommandGroup(help="Look at flows, go on with those that failed, and cancel them.")

Id = Annotated[
    int, Argument(help="The flow's id.", metavar="FLOW", parser=values.whole("FLOW", least=1, most=2**63 - 1))
]
Limit = Annotated[
    int, Option(metavar="N", help="Show this many.", parser=values.whole("--limit", least=1, most=10_000))
]


@command(group, "list")
async def list_flows(
    call: Call,
    state: Annotated[
        FlowState | None,
        Option(metavar="STATE", help="Only those in this state.", parser=values.one_of("--state", FlowState)),
    ] = None,
    name: Annotated[str | None, Option(metavar="NAME", help="Only those of this name.")] = None,
    before: Annotated[
        int | None,
        Option(
            metavar="FLOW",
            help="Only those with smaller ids.",
            parser=values.whole("--before", least=1, most=2**63 - 1),
        ),
    ] = None,
    limit: Limit = 100,
) -> Report:
    """List flows, the newest first."""
    async with opened(call) as forge:
        flows = await forge.flows.list(state=state, name=name, before=before, limit=limit)
    return Report([document(one) for one in flows], [_rows(flows)])


@command(group, "show")
async def show(
    call: Call,
    flow_id: Id,
    after: Annotated[
        int,
        Option(
            metavar="N",
            help="Only nodes with a greater number.",
            parser=values.whole("--after", least=-1, most=2**31 - 1),
        ),
    ] = -1,
    limit: Limit = 1000,
) -> Report:
    """Show a flow and its nodes."""
    async with opened(call) as forge:
        flow = await forge.flows.get(flow_id)
        nodes = await forge.flows.nodes(flow_id, after=after, limit=limit)
    shown = {**document(flow), "nodes": flow.nodes, "of_nodes": [document(one) for one in nodes]}
    return Report(shown, [_rows([flow]), _node_rows(nodes)])


@command(group, "retry")
async def retry(
    call: Call,
    flow_id: Annotated[
        int | None,
        Argument(
            help="The flow's id.",
            metavar="[FLOW]",
            parser=values.whole("FLOW", least=1, most=2**63 - 1),
        ),
    ] = None,
    all_dead: Annotated[bool, Option("--all", help="All dead flows, instead of one.")] = False,
    name: Annotated[
        str | None, Option(metavar="NAME", help="Only those of this name; goes with --all.")
    ] = None,
) -> Report:
    """Go on with a dead or cancelled flow from what failed, or with all dead ones."""
    if (flow_id is None) != all_dead:
        raise InvalidInput("FLOW and --all are both given, or neither is; allowed is one of them.")
    if name is not None and not all_dead:
        raise InvalidInput("--name goes with --all, not with a flow.")
    async with opened(call) as forge:
        if flow_id is None:
            done = await forge.flows.retry_all(name=name)
            return Report({"retried": done.retried, "left": list(done.left)}, [_retried(done)])
        flow = await forge.flows.retry(flow_id)
    return Report(
        document(flow), [f"Flow {flow.id} goes on: {flow.left:,} of {flow.nodes:,} nodes are left."]
    )


def _retried(done: RetriedFlows) -> str:
    said = f"Retried dead flows: {done.retried:,}."
    if not done.left:
        return said
    more = f" and {len(done.left) - 5:,} more" if len(done.left) > 5 else ""
    return f"{said} Jobs were deleted of {', '.join(map(str, done.left[:5]))}{more}: start them anew."


@command(group, "cancel")
async def cancel(call: Call, flow_id: Id) -> Report:
    """Cancel a flow: nodes that wait are dead, and those that run are told to stop."""
    async with opened(call) as forge:
        flow = await forge.flows.cancel(flow_id)
    left = f"; {flow.left:,} nodes still run" if flow.left else ""
    return Report(document(flow), [f"Flow {flow.id} is cancelled{left}."])


def _rows(flows: Sequence[FlowStatus]) -> Rows:
    columns = ["id", "name", "state", "nodes", "left", "done", "dead", "skipped"]
    rows = [
        [str(one.id), one.name, one.state.value, *(f"{count:,}" for count in _counts(one))] for one in flows
    ]
    return Rows(columns, rows, "No flows.", frozenset({"id", *columns[3:]}))


def _counts(flow: FlowStatus) -> tuple[int, ...]:
    return flow.nodes, flow.left, flow.done, flow.dead, flow.skipped


def _node_rows(nodes: Sequence[FlowNode]) -> Rows:
    columns = ["number", "node", "job", "state", "after", "error"]
    rows = [
        [
            str(one.number),
            one.name,
            str(one.job_id),
            one.state,
            _after(one.after),
            first_line(one.error) if one.error else "",
        ]
        for one in nodes
    ]
    return Rows(columns, rows, "No nodes.", frozenset({"number", "job"}))


def _after(job_ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, job_ids[:5]))
    return shown if len(job_ids) <= 5 else f"{shown}, and {len(job_ids) - 5:,} more"

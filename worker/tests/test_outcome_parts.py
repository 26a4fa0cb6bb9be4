"""How many outcomes are written together."""

from msgspec.structs import replace

from forge_jobs.model.flow import FlowChanges, NewNode
from forge_jobs.model.job import Claim, End, NewJob, State
from forge_jobs.model.links import FLOW
from forge_jobs.model.run import Outcome, Run
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.batches import parts

CLAIM = Claim(1, 1, 1, 1, "grow", b"{}", "json", 0, 0, 1, None, None, 0.0, FLOW)


def test_ends_that_add_very_many_nodes_to_their_flows_are_written_one_after_the_other() -> None:
    outcomes = [outcome(number, adds) for number, adds in enumerate((6_000, 4_000, 1, 0, 30_000, 1))]

    written = [[verdict.write.claim.job_id for verdict in part] for part in parts(outcomes)]  # type: ignore[union-attr]

    assert written == [[0, 1], [2, 3], [4], [5]]


def outcome(number: int, adds: int) -> Verdict:
    claim = replace(CLAIM, job_id=number)
    changes = FlowChanges([NewNode("more", NewJob("work"))] * adds) if adds else None
    return Verdict(End(claim, State.DONE, changes=changes), Run(claim, "default", Outcome.DONE, 0.0, 0.0))

"""Judges a version that has a share of the slots, by its jobs and its containers.

It is compared with the current version in the same time, since it got its present share. All the numbers
that this needs are in the database, so an operator that has just started judges as the previous one did.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from forge_jobs.model import Version
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.case import Case, since_its_share
from forge_operator.plan.rollout.doubts import doubts
from forge_operator.plan.rollout.faults import crashing, failing, hanging, slow, unready
from forge_operator.specs import RolloutStrategy, WorkersSpec
from forge_operator.words import printable

LONGEST_SENTENCE = 500
"""Characters of a judgement's sentence: the database keeps it, and what containers say of themselves may be of any kind."""


class Word(StrEnum):
    """What to do with a version that has a share."""

    GOES_ON = "goes on"
    HOLDS = "holds"  # its step does not end yet
    GOES_BACK = "goes back"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do with a version that has a share, and why."""

    word: Word
    sentence: str = ""


GOES_ON = Judgement(Word.GOES_ON)


def judge(
    pool: Pool, spec: WorkersSpec, version: Version, *, left: timedelta, replicas: int, is_last: bool
) -> Judgement:
    """Judge a version that has a share of the slots; `left` is what remains of its step."""
    before = pool.current
    if before is None:
        return GOES_ON  # there is nothing to compare it with, and nothing to go back to
    case = Case(
        pool=pool,
        spec=spec,
        version=version,
        before=before,
        record=since_its_share(version, version),
        record_before=since_its_share(version, before),
        left=left,
        replicas=replicas,
        is_last=is_last,
    )
    for grave in (crashing, failing, hanging, slow, unready):  # what explains the others comes first
        if sentence := grave(case):
            return goes_back(sentence, before)
    if left > timedelta(0):
        return GOES_ON
    sentence = next(doubts(case), None)
    if sentence is None:
        return GOES_ON
    patience = case.abort.inconclusive_hold
    if spec.rollout.strategy is RolloutStrategy.PROGRESSIVE and patience and -left > patience:
        return goes_back(f"{sentence}, after {patience.total_seconds():g} s of waiting", before)
    return Judgement(Word.HOLDS, f"{sentence}.")


def goes_back(sentence: str, before: Version) -> Judgement:
    """Return the judgement that the rollout is aborted, in a sentence that the database can keep."""
    end = f"; version {before.version} serves again."
    return Judgement(Word.GOES_BACK, printable(sentence)[: LONGEST_SENTENCE - len(end)] + end)

"""Conditions and their reasons: each has its sentence and its place."""

import re

import pytest

from forge_operator.conditions import OF_CRONS, OF_QUEUES, REASONS, Condition, ConditionReason, Truth


@pytest.mark.parametrize("member", [*Condition, *ConditionReason])
def test_every_condition_and_every_reason_says_what_it_means(member: Condition | ConditionReason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]*", member)
    assert re.fullmatch(r"[A-Z].*\.", member.meaning)


def test_a_member_is_the_text_that_kubernetes_gets() -> None:
    assert f"{Condition.READY}={Truth.TRUE}, {ConditionReason.SERVING}" == "Ready=True, Serving"
    assert ConditionReason("InvalidSpec") is ConditionReason.INVALID_SPEC  # type: ignore[call-arg]


def test_every_condition_has_reasons_and_every_reason_a_condition() -> None:
    assert REASONS.keys() == set(Condition)
    assert {reason for reasons in REASONS.values() for reason in reasons} == set(ConditionReason)


def test_ready_tells_what_is_wrong_elsewhere() -> None:
    failures = {
        reason
        for condition in (Condition.SYNCED, Condition.DATABASE_REACHABLE)
        for reason, truth in REASONS[condition].items()
        if truth is Truth.FALSE
    }

    assert {reason for reason in failures if REASONS[Condition.READY].get(reason) is Truth.FALSE} == failures


def test_what_is_not_known_is_not_said_to_be_false() -> None:
    for condition in (Condition.READY, Condition.SYNCED, Condition.PROGRESSING):
        assert REASONS[condition][ConditionReason.DATABASE_UNREACHABLE] is Truth.UNKNOWN


def test_a_cron_has_no_conditions_of_pods() -> None:
    assert set(OF_CRONS) < set(OF_QUEUES) == set(Condition)

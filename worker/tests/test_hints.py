"""Where the looks of a worker begin, and what brings them back to an earlier place."""

import time
from collections.abc import Sequence
from datetime import timedelta

from msgspec import structs

from forge_jobs.model.job import Claim
from forge_jobs.model.links import FAIR
from forge_jobs.storage.interface.claims import Front
from forge_jobs.worker.hints import LATE, LONGEST_ENQUEUE, MARGIN, TURNS, Hints

LONG_AGO, EARLIER, NOW = 1_000_000, 50_000_000, 90_000_000


def claimed(pos: int, priority: int = 0) -> Claim:
    return Claim(1, 1, 1, 1, "work", b"", "json", priority, pos, 5, None, None, time.time())


def took(hints: Hints, claims: Sequence[Claim], *, is_full: bool) -> None:
    hints.took(hints.set_out(), claims, is_full=is_full)


def begins(hints: Hints) -> dict[int, int]:
    return hints.set_out().begun


def test_the_first_look_sees_everything():
    assert Hints().options() == {}


def test_a_full_look_is_followed_by_one_from_its_end():
    hints = Hints()
    took(hints, [claimed(EARLIER), claimed(EARLIER + 5)], is_full=True)

    assert hints.options() == {"hint": (0, EARLIER + 5 - MARGIN)}


def test_of_jobs_of_tenants_a_look_begins_at_the_turn_that_had_come_before_the_last_moments():
    now = 100.0
    hints = Hints(lambda: now)
    for first in (EARLIER, EARLIER + 100, EARLIER + 200):
        now += LONGEST_ENQUEUE * 0.6
        fair = [structs.replace(claimed(first + turn), links=FAIR) for turn in (0, 7, 20)]
        took(hints, fair, is_full=True)
        if first == EARLIER:
            assert hints.options() == {"hint": (0, EARLIER - TURNS)}

    assert hints.options() == {"hint": (0, EARLIER + 20)}


def test_a_look_that_was_not_full_keeps_its_hints_and_the_next_goes_a_moment_back():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=False)
    took(hints, [], is_full=False)

    assert hints.options() == {"hints": [(0, EARLIER - MARGIN)], "late": LATE}


def test_each_priority_has_a_hint_of_its_own():
    hints = Hints()
    took(hints, [claimed(EARLIER), claimed(LONG_AGO, priority=3)], is_full=True)

    assert hints.options() == {
        "hints": [(0, EARLIER - MARGIN), (3, LONG_AGO - MARGIN)],
        "late": timedelta(0),
    }


def test_what_a_scout_finds_before_the_hints_is_looked_at_next():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=False)

    assert hints.scouted(Front({0: LONG_AGO}, NOW), hints.set_out())
    assert begins(hints) == {0: LONG_AGO}


def test_what_a_scout_saw_before_it_was_claimed_lowers_no_hint():
    hints = Hints()
    took(hints, [claimed(LONG_AGO)], is_full=True)
    begun = hints.set_out()
    took(hints, [claimed(EARLIER)], is_full=True)

    assert not hints.scouted(Front({0: LONG_AGO + 1}, NOW), begun)
    assert begins(hints) == {0: EARLIER - MARGIN}


def test_where_a_scout_finds_nothing_the_looks_begin_at_its_moment():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=True)

    assert not hints.scouted(Front({7: None}, NOW), hints.set_out())
    assert begins(hints) == {0: NOW - MARGIN, 7: NOW - MARGIN}
    assert hints.options()["late"] == LATE


def test_a_place_that_was_told_of_is_looked_at():
    hints = Hints()
    hints.lower(0, LONG_AGO)
    assert begins(hints) == {}  # everything is looked at anyway

    took(hints, [claimed(EARLIER)], is_full=False)
    hints.lower(0, EARLIER)
    assert begins(hints) == {0: EARLIER - MARGIN}

    hints.lower(0, LONG_AGO)
    assert begins(hints) == {0: LONG_AGO}


def test_what_is_left_alone_is_passed_over_again():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=False)
    hints.scouted(Front({0: LONG_AGO}, NOW), hints.set_out())
    look = hints.set_out()
    hints.took(look, [claimed(LONG_AGO + 10_000)], is_full=True)

    hints.leave_alone(look)

    assert begins(hints) == {0: EARLIER - MARGIN}


def test_a_look_does_not_pass_what_a_scout_finds_meanwhile():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=True)
    look, scout = hints.set_out(), hints.set_out()

    hints.scouted(Front({0: LONG_AGO}, NOW), scout)
    hints.took(look, [claimed(EARLIER + 5)], is_full=True)

    assert begins(hints) == {0: LONG_AGO}
    assert not hints.is_full


def test_a_look_that_sees_everything_does_not_pass_what_is_told_of_meanwhile():
    hints = Hints()
    look = hints.set_out()

    hints.lower(0, LONG_AGO)
    hints.took(look, [claimed(EARLIER)], is_full=True)

    assert begins(hints) == {0: LONG_AGO}


def test_what_a_look_leaves_alone_is_not_what_a_scout_finds_meanwhile():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=False)
    hints.scouted(Front({0: LONG_AGO + 1}, NOW), hints.set_out())
    look, scout = hints.set_out(), hints.set_out()

    hints.scouted(Front({0: LONG_AGO}, NOW), scout)
    hints.took(look, [claimed(EARLIER)], is_full=True)
    hints.leave_alone(look)

    assert begins(hints) == {0: LONG_AGO}


def test_a_scout_passes_nothing_that_is_told_of_meanwhile():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=True)
    scout = hints.set_out()

    hints.lower(0, LONG_AGO)
    hints.lower(7, LONG_AGO)
    hints.scouted(Front({7: None}, NOW), scout)

    assert begins(hints) == {0: LONG_AGO, 7: LONG_AGO}


def test_a_scout_does_not_pass_an_earlier_place_that_is_told_of_meanwhile():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=True)
    scout = hints.set_out()

    hints.lower(0, LONG_AGO)
    hints.scouted(Front({0: LONG_AGO + 5}, NOW), scout)

    assert begins(hints) == {0: LONG_AGO}


def test_a_full_look_is_not_followed_by_one_that_passes_a_priority_that_is_told_of():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=True)

    hints.lower(-5, NOW)

    assert hints.options() == {"hints": [(0, EARLIER - MARGIN)], "late": LATE}


def test_what_is_on_its_way_says_nothing_once_all_is_forgotten():
    hints = Hints()
    took(hints, [claimed(EARLIER)], is_full=True)
    look, scout = hints.set_out(), hints.set_out()

    hints.forget()
    hints.took(look, [claimed(NOW)], is_full=True)
    hints.leave_alone(look)

    assert not hints.scouted(Front({0: None}, NOW), scout)
    assert hints.options() == {}

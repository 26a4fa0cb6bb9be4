"""When a leader that cannot read a cron offers the lead."""

from itertools import pairwise

from forge_jobs.maintenance.offer import Offer


def test_who_can_read_every_cron_offers_nothing() -> None:
    assert not Offer().is_due([], 1000)


def test_the_lead_is_offered_at_once_and_then_ever_more_seldom() -> None:
    offer, offers = Offer(), []
    for at in range(0, 4 * 3600, 5):
        if offer.is_due(["nightly"], at):
            offer.made(at)
            offers.append(at)

    pauses = [later - earlier for earlier, later in pairwise(offers)]
    assert offers[0] == 0
    assert pauses == [60, 120, 240, 480, 960, 1920, 3600, 3600]


def test_another_cron_that_cannot_be_read_is_offered_at_once() -> None:
    offer = Offer()
    offer.is_due(["nightly"], 0)
    offer.made(0)

    assert not offer.is_due(["nightly"], 5)
    assert offer.is_due(["nightly", "weekly"], 5)


def test_a_cron_that_could_be_read_meanwhile_is_a_new_one() -> None:
    offer = Offer()
    offer.is_due(["nightly"], 0)
    offer.made(0)

    assert not offer.is_due([], 5)
    assert offer.is_due(["nightly"], 10)

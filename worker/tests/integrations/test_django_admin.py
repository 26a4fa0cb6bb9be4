"""Jobs and queues in Django's admin, where the jobs are in another database than the users."""

import pytest

from tests.integrations.conftest import *  # noqa: F403  the project
from tests.integrations.conftest import Project, Start


def test_jobs_are_found_by_filters_ids_and_keys(project: Project) -> None:
    found, said = project.scene("jobs_are_found")

    assert found == [[2, 1, 0], [1], [0], [2, 1], [0], [0], [2], [], [0], []]
    assert said[0].startswith("There is no queue 'nowhere'")


def test_the_page_of_a_job_says_why_and_shows_nothing_that_is_redacted(project: Project) -> None:
    assert project.scene("a_page_of_a_job") == [[], False, [404, 404, 404], 1]


def test_jobs_are_retried_cancelled_and_run_at_once_and_who_did_it_is_kept(project: Project) -> None:
    heard, states, is_logged = project.scene("jobs_are_moved")

    assert heard == [
        ["Job is pending.", "Job is pending; only a dead or retrying "],
        ["Job is pending."],
        ["Job is cancelled."],
        ["Job is pending."],
    ]
    assert (states, is_logged) == (["pending", "pending", "pending"], True)


def test_who_may_only_look_changes_nothing_and_strangers_see_nothing(project: Project) -> None:
    answers, state = project.scene("only_who_may")

    assert answers == [200, 200, False, False, 403, 403, 403, 403, 302, 403, 403, 403]
    assert state == "pending"


def test_queues_are_paused_for_a_time_and_a_reason(project: Project) -> None:
    heard, facts, is_paused, leads_to_jobs = project.scene("queues_are_paused")

    assert heard[0][0].startswith("The time of the pause is 'soon'")
    assert heard[1:] == [["Queue mail is paused for 10 min."], ["Queue mail is resumed."]]
    assert facts == [True, "no mail", True, True]
    assert (is_paused, leads_to_jobs) == (False, True)


def test_a_choice_that_no_page_offers_is_said(project: Project) -> None:
    assert project.scene("strange_choices") == [
        f"The id of a job is '{name}', allowed is a number from 1 to 9223372036854775807."
        for name in ("x", "-1", "9" * 30)
    ]


def test_when_the_database_of_the_jobs_is_away_the_pages_say_so(project: Project) -> None:
    answers, said = project.scene("the_database_is_away")

    assert answers == [200, 200, 503, 503, 503]
    assert said == [1] * 5


def test_the_jobs_of_each_backend_are_shown_and_moved_in_their_own_database(project: Project) -> None:
    answer = project.scene("each_database_is_shown")

    assert answer == [
        [True, 3],
        "beside",
        "pending",
        2,
        True,
        ["There is no ForgeBackend 'nobody' in TASKS, allowed are any, atomic, beside, default."],
    ]


def test_models_are_read_by_django_and_never_written(project: Project) -> None:
    is_same, tags, recent, is_later, refused = project.scene("models_read_only")

    assert (is_same, tags, recent, is_later) == (True, ["urgent", "eu"], 3, True)
    assert refused == [
        "A job is not saved, allowed is to read it.",
        "A job is not deleted, allowed is to read it.",
        "A queue is not saved, allowed is to read it.",
    ]


def test_migrations_of_the_app_make_and_drop_no_table(project: Project) -> None:
    assert project.scene("migrations_make_nothing_twice") == [True, "No changes detected", False, True]


def test_querysets_write_no_jobs_and_no_queues(project: Project) -> None:
    refused, queues, is_as_it_was = project.scene("querysets_write_nothing")

    of_queues, of_jobs = [
        f"{those} are not written by Django, allowed is to read them." for those in ("Queues", "Jobs")
    ]
    assert refused == [of_queues] * 4 + [of_jobs] * 2
    assert (queues, is_as_it_was) == ([["mail", False]], True)


def test_querysets_of_two_databases_read_each_its_own_whichever_was_made_first(project: Project) -> None:
    answer = project.scene("querysets_of_two_databases")

    assert answer == [[True, 3, 1, True], ["shop.beside"], ["shop.ship", "pending"], ["default", "mail"]]


def test_what_is_done_in_the_admin_is_noted_as_done_by_the_user_of_django(project: Project) -> None:
    assert project.scene("who_did_it_is_noted") == [[["resumed", "ada"], ["paused", "ada"]], ["ada"]]


def test_jobs_are_found_by_their_tags_and_by_nothing_that_looks_like_it(project: Project) -> None:
    has, all_of_none, is_excluded, refused = project.scene("tags_are_asked_for")

    assert (has, all_of_none, is_excluded) == ([True, True, False, False, True], 3, False)
    assert refused == [
        "Unsupported lookup 'exact' for Tags",
        "Unsupported lookup 'icontains' for Tags",
    ]


def test_jobs_are_found_by_the_date_and_the_year_of_a_moment(project: Project) -> None:
    assert project.scene("parts_of_moments_are_asked_for") == [3, 0, 3, 0, 2]


@pytest.mark.parametrize("environment", [{}, {"JOBS_WITHOUT_TZ": "1", "TZ": "America/New_York"}])
def test_moments_are_computed_with_as_those_of_django(start: Start, environment: dict[str, str]) -> None:
    with start(**environment) as project:
        assert project.scene("moments_are_computed_with") == [True, True, True, 3, 1, True, True, 3]

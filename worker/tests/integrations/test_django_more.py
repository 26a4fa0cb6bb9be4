"""Connections around tasks, `manage.py forge`, and helpers for tests of Django's."""

from tests.integrations.conftest import *  # noqa: F403  the project
from tests.integrations.conftest import Project


def test_a_connection_that_the_server_ended_between_two_tasks_fails_neither(project: Project) -> None:
    kept = 1 if project.kind == "sqlite" else 3

    assert project.scene("connections_are_ended_between_tasks") == [[], 3, kept]


def test_a_pool_gives_no_task_a_connection_that_is_dead(project: Project) -> None:
    assert project.scene("a_pool_has_dead_connections") == ["SUCCESSFUL"] * 3


def test_a_task_that_leaves_a_transaction_open_fails_and_spoils_no_later_one(project: Project) -> None:
    statuses, said = project.scene("a_task_leaves_a_transaction_open")

    assert statuses == ["FAILED", "SUCCESSFUL"]
    assert said.endswith("The task left a transaction open on the database 'jobs'; it was rolled back.")


def test_an_atomic_task_and_the_end_of_its_job_are_one_transaction(project: Project) -> None:
    assert project.scene("atomic_tasks_end_with_their_work") == [["a bike"], "a bike", "FAILED", 1]


def test_the_command_line_has_the_database_of_the_project(project: Project) -> None:
    answer = project.scene("the_command_line_knows_the_project")

    assert answer == [True, 1, "There is no job 999999.\n", 1, False]


def test_tasks_are_seen_and_run_in_tests_of_django(project: Project) -> None:
    assert project.scene("tests_of_django") == [9, ""]

"""A wrong name of an option is answered with the right one, on handlers and on jobs."""

import inspect
from typing import Any

import pytest

from forge_jobs import Forge, InvalidInput
from forge_jobs.handlers.decorator import DECLARED
from forge_jobs.handlers.handler import Handler
from forge_jobs.handlers.options import NAMES, HandlerValues, OptionValues
from forge_jobs.rules.option_names import ELSEWHERE

ON_A_HANDLER = {
    "max_retries": "There is no option 'max_retries'; did you mean 'max_attempts', which counts the first attempt too: 3 ",
    "time_limit": "There is no option 'time_limit'; did you mean 'timeout'?",
    "name": "There is no option 'name'; did you mean 'kind'?",
    "quue": "There is no option 'quue'; did you mean 'queue'?",
    "delay": "The option 'delay' is said of a job: handler.options(delay=...).enqueue(...).",
    "countdown": "There is no option 'countdown'; did you mean 'delay'? The option 'delay' is said of a job: ",
    "frob": "There is no option 'frob'; options: batch, codec, cron, deadline,",
}


@pytest.mark.parametrize("name", ON_A_HANDLER)
def test_a_wrong_option_of_a_handler_is_answered_with_the_right_one(name: str) -> None:
    declare: Any = Forge("sqlite://:memory:").handler

    with pytest.raises(InvalidInput) as refused:
        declare(**{name: 3})

    assert str(refused.value).startswith(ON_A_HANDLER[name])


ON_A_JOB = {
    "eta": "There is no option 'eta'; did you mean 'run_at', an aware datetime?",
    "retries": "There is no option 'retries'; did you mean 'max_attempts', which counts",
    "job_id": "There is no option 'job_id'; did you mean 'key'?",
    "prioritty": "There is no option 'prioritty'; did you mean 'priority'?",
    "title": "The option 'title' is said where the handler is declared: @forge.handler(title=...).",
    "frob": "There is no option 'frob'; options: connection, deadline, delay,",
}


@pytest.mark.parametrize("name", ON_A_JOB)
def test_a_wrong_option_of_a_job_is_answered_with_the_right_one(name: str) -> None:
    job: Any = Forge("sqlite://:memory:").job

    with pytest.raises(InvalidInput) as refused:
        job("send", {}, **{name: 3})

    assert str(refused.value).startswith(ON_A_JOB[name])


def test_every_option_that_another_queue_has_is_one_here() -> None:
    assert set(ELSEWHERE.values()) <= {*NAMES, *DECLARED}
    assert ELSEWHERE.keys() & {*NAMES, *DECLARED} == set()


def test_type_checkers_know_the_options_that_there_are() -> None:
    taken = {
        name for name, one in inspect.signature(Handler).parameters.items() if one.kind is one.KEYWORD_ONLY
    } - {"takes_items"}  # which `batch_handler` says

    assert HandlerValues.__annotations__.keys() == taken == DECLARED
    assert OptionValues.__annotations__.keys() == set(NAMES)

"""Whoever carries out an action knows every action that a plan may hold."""

from types import SimpleNamespace
from typing import Any

import pytest

from forge_operator.cluster.events import Subject
from forge_operator.loop.cluster_actor import ClusterActor
from forge_operator.loop.database_actor import DatabaseActor


class Unknown:
    """An action that nobody carries out."""


async def nothing() -> Any:
    return SimpleNamespace(versions=None)


async def test_an_action_that_nobody_carries_out_is_an_error() -> None:
    database = DatabaseActor(SimpleNamespace(epoch=nothing, forge=nothing))  # type: ignore[arg-type]
    subject: Any = Subject

    with pytest.raises(AssertionError, match="Unknown"):
        await ClusterActor(None, None).act(subject, Unknown())  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="Unknown"):
        await database.act_on_row(Unknown())  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="Unknown"):
        await database.act_on_version(Unknown())  # type: ignore[arg-type]

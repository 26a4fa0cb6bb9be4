"""kopf goes to the API server as everything else here does."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kopf
import pytest
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import incluster_config

from forge_operator.cluster import informer
from forge_operator.cluster.api import QUEUES, access
from forge_operator.cluster.informer import DEAF_AFTER, Informer
from forge_operator.state.keys import QUEUE, Key
from tests.edges.api_server import ApiServer, Refused
from tests.edges.until import until


async def test_in_a_pod_kopf_needs_no_name_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"token": "t0ken", "ca.crt": "a certificate"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr("forge_operator.cluster.api.SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")

    found = await informer._login()

    assert found.server == (await access()).host == "https://10.96.0.1:443"
    assert found.as_http_headers() == {"Authorization": "Bearer t0ken"}
    assert found.ca_path == str(tmp_path / "ca.crt")
    assert not found.insecure


async def test_that_kopf_may_not_watch_is_known_though_kopf_never_ends(
    api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def local() -> Configuration:
        return Configuration(host=api.url)

    monkeypatch.setattr(informer, "access", local)
    monkeypatch.setattr(informer, "CLEAN_END", 0.1)
    watching = asyncio.create_task(Endless(lambda key: None).run())
    await until(lambda: api.is_watched(QUEUES, None), 20)

    api.judge = lambda request: Refused(403, "Forbidden", "not allowed") if "watch" in request.query else None
    api.hang_up()
    with pytest.raises(Exception, match="not allowed"):
        await asyncio.wait_for(watching, 30)


class Endless(Informer):
    """Its kopf hangs when it should end."""

    def registry(self, tell: Callable[[str, Mapping[str, Any]], None]) -> kopf.OperatorRegistry:
        registry = super().registry(tell)

        async def hang(**_: Any) -> None:
            await asyncio.Event().wait()

        kopf.on.cleanup(registry=registry)(hang)
        return registry


def test_an_object_that_changed_and_was_not_told_of_in_time_is_missed() -> None:
    now = 0.0
    watcher = Informer(lambda key: None, clock=lambda: now)
    key = Key(QUEUE, "default", "mail")
    before, after = ({"metadata": {"name": "mail", "namespace": "default", "generation": n}} for n in (1, 2))
    watcher._reported(QUEUE, {"type": "ADDED", "object": before})
    assert watcher.missed({key: before}) == 0

    assert watcher.missed({key: after}) == 0, "the API server may be about to tell"
    now += DEAF_AFTER
    assert watcher.missed({key: after}) == 1
    watcher._reported(QUEUE, {"type": "MODIFIED", "object": after})
    assert watcher.missed({key: after}) == 0


def test_an_object_that_changes_all_the_time_is_not_missed_while_it_is_told_of() -> None:
    now = 0.0
    watcher = Informer(lambda key: None, clock=lambda: now)
    key = Key(QUEUE, "default", "mail")
    for generation in range(5):
        found = {"metadata": {"name": "mail", "namespace": "default", "generation": generation}}
        assert watcher.missed({key: found}) == 0, "listed a moment before it is told of"
        watcher._reported(QUEUE, {"type": "MODIFIED", "object": found})
        now += DEAF_AFTER

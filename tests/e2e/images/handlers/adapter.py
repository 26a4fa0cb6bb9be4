"""A metrics adapter of the smallest kind: tells autoscalers how many jobs of a queue wait.

It serves external.metrics.k8s.io to the API server, over TLS with a certificate that it makes at its start. Its one
metric, forge-jobs-pending with the label queue, is read from the database each time somebody asks.
"""

import os
import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from aiohttp import web

VERSION = "external.metrics.k8s.io/v1beta1"
METRIC = "forge-jobs-pending"
PENDING = "SELECT count(*) FROM forge_jobs.jobs WHERE queue = $1 AND state = 'pending'"
CERTIFICATE, KEY = Path("/tmp/adapter.crt"), Path("/tmp/adapter.key")


async def resources(_: web.Request) -> web.Response:
    """Answer what there is; the API server asks this to see whether we live."""
    metric = {"name": METRIC, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList"}
    found = {"kind": "APIResourceList", "groupVersion": VERSION, "resources": [metric | {"verbs": ["get"]}]}
    return web.json_response(found)


async def value(request: web.Request) -> web.Response:
    """Answer how many jobs of the queue that the label names wait."""
    queue = request.query["labelSelector"].removeprefix("queue=")
    connection = await asyncpg.connect(os.environ["FORGE_DATABASE_URL"], timeout=5)
    try:
        pending = await connection.fetchval(PENDING, queue)
    finally:
        await connection.close()
    item = {
        "metricName": METRIC,
        "metricLabels": {"queue": queue},
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": str(pending),
    }
    found = {"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": [item]}
    return web.json_response(found)


def context() -> ssl.SSLContext:
    """Return what TLS is served with: a certificate that nobody has signed but itself."""
    made = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=adapter"]
    subprocess.run(["openssl", "req", *made, "-keyout", KEY, "-out", CERTIFICATE], check=True)
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(CERTIFICATE, KEY)
    return found


app = web.Application()
app.router.add_get(f"/apis/{VERSION}", resources)
app.router.add_get(f"/apis/{VERSION}/namespaces/{{namespace}}/{METRIC}", value)

if __name__ == "__main__":
    web.run_app(app, port=6443, ssl_context=context())

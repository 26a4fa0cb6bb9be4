"""The Kubernetes operator will live here.

It will turn `ForgeQueue` and `ForgeCron` objects into configuration rows and worker
Deployments. It uses the public names of `forge_jobs`; `forge_jobs` never imports it.
"""

__all__: list[str] = []

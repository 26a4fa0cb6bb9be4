"""The Kubernetes operator: it makes the cluster and the database follow ForgeQueue and ForgeCron objects.

`program` waits for the Lease and then runs `loop`: it gathers the objects, pods and rows of one
ForgeQueue or ForgeCron (`state`), lets `plan` decide, which only reads, and carries out the actions
of the plan. `cluster` talks to the API server, `database` to the database, by the library's public
names; `forge_jobs` never imports the operator. `specs` reads and checks what objects say, `crds`
makes their definitions from the same fields, and `conditions` lists what their status can say.
"""

__all__: list[str] = []

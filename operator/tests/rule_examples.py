"""For every rule of the custom resources, by its message: what keeps it, and what breaks it."""

from dataclasses import dataclass
from typing import Any

from tests.custom_resources import Resource, forge_cron, forge_queue, template, workers


@dataclass(frozen=True)
class Example:
    """A resource, or a change from `old` to it."""

    resource: Resource
    old: Resource | None = None


@dataclass(frozen=True)
class Examples:
    """What keeps a rule and what breaks it, and where the broken one is said to be."""

    message: str
    at: str
    kept: tuple[Example, ...]
    broken: tuple[Example, ...]


def queues(*specs: dict[str, Any]) -> tuple[Example, ...]:
    return tuple(Example(forge_queue(**spec)) for spec in specs)


def pools(*said: dict[str, Any]) -> tuple[Example, ...]:
    return queues(*({"workers": workers(**each)} for each in said))


def scaled(*said: dict[str, Any]) -> tuple[Example, ...]:
    return pools(*({"autoscaling": each} for each in said))


def rollouts(*said: dict[str, Any]) -> tuple[Example, ...]:
    return pools(*({"rollout": each} for each in said))


def crons(*specs: dict[str, Any]) -> tuple[Example, ...]:
    return tuple(Example(forge_cron(**spec)) for spec in specs)


def steps(*weights: int) -> list[dict[str, int]]:
    return [{"weightPercent": weight, "pauseSeconds": 60} for weight in weights]


def labelled(**labels: str) -> dict[str, Any]:
    return {"template": template(metadata={"labels": labels})}


EXAMPLES = (
    Examples(
        "maxAttempts is 1 (no retry) or more, or -1 for ever",
        at="spec.maxAttempts",
        kept=queues({"maxAttempts": 1}, {"maxAttempts": -1}),
        broken=queues({"maxAttempts": 0}),
    ),
    Examples(
        "job.maxAttempts is 1 (no retry) or more, or -1 for ever",
        at="spec.job.maxAttempts",
        kept=crons(
            *({"job": {"queue": "mail", "kind": "send", "maxAttempts": number}} for number in (1, -1))
        ),
        broken=crons({"job": {"queue": "mail", "kind": "send", "maxAttempts": 0}}),
    ),
    Examples(
        "group and tenant exclude each other",
        at="spec.job.tenant",
        kept=crons(
            {"job": {"queue": "mail", "kind": "send", "group": {"name": "shop", "limit": 2}}},
            {"job": {"queue": "mail", "kind": "send", "tenant": "ada"}},
        ),
        broken=crons({"job": {"queue": "mail", "kind": "send", "tenant": "ada", "group": {"name": "shop"}}}),
    ),
    Examples(
        "queueName cannot be changed: another name is another queue",
        at="spec.queueName",
        kept=(
            Example(forge_queue(queueName="mail")),
            Example(forge_queue(paused=True), old=forge_queue()),
            Example(forge_queue(queueName="post", paused=True), old=forge_queue(queueName="post")),
            Example(forge_queue(queueName="mail"), old=forge_queue()),
            Example(forge_queue(), old=forge_queue(queueName="mail")),
        ),
        broken=(
            Example(forge_queue(queueName="post"), old=forge_queue(queueName="mail")),
            Example(forge_queue(queueName="post"), old=forge_queue()),
            Example(forge_queue(), old=forge_queue(queueName="post")),
        ),
    ),
    Examples(
        "pausedUntil goes with paused: true",
        at="spec.pausedUntil",
        kept=queues(
            {"paused": False}, {"paused": True}, {"paused": True, "pausedUntil": "2030-01-31T08:00:00Z"}
        ),
        broken=queues({"pausedUntil": "2030-01-31T08:00:00Z"}),
    ),
    Examples(
        "pausedWhy goes with paused: true",
        at="spec.pausedWhy",
        kept=queues({"paused": True, "pausedWhy": "their shop moves"}),
        broken=queues({"paused": False, "pausedWhy": "their shop moves"}),
    ),
    Examples(
        "baseSeconds must be at most maxSeconds",
        at="spec.backoff.baseSeconds",
        kept=queues(
            {},
            {"backoff": {"baseSeconds": 1800}},
            {"backoff": {"baseSeconds": 5, "maxSeconds": 6}},
            {"backoff": {"enabled": False, "baseSeconds": 0, "maxSeconds": 0}},
        ),
        broken=queues(
            {"backoff": {"baseSeconds": 1801}},
            {"backoff": {"maxSeconds": 9}},
            {"backoff": {"baseSeconds": 6, "maxSeconds": 5}},
        ),
    ),
    Examples(
        "replicas and autoscaling exclude each other",
        at="spec.workers.replicas",
        kept=pools({}, {"replicas": 0}, {"autoscaling": {"maxReplicas": 1}}),
        broken=pools(
            {"replicas": 0, "autoscaling": {"maxReplicas": 1}},
            {"replicas": 3, "autoscaling": {"maxReplicas": 5}},
        ),
    ),
    Examples(
        "minReplicas must be at most maxReplicas",
        at="spec.workers.autoscaling.minReplicas",
        kept=scaled(
            {"maxReplicas": 1}, {"minReplicas": 2, "maxReplicas": 2}, {"minReplicas": 0, "maxReplicas": 9}
        ),
        broken=scaled({"minReplicas": 3, "maxReplicas": 2}),
    ),
    Examples(
        "fallbackReplicas must be at most maxReplicas",
        at="spec.workers.autoscaling.fallbackReplicas",
        kept=scaled(
            {"maxReplicas": 2},
            {"fallbackReplicas": 2, "maxReplicas": 2},
            {"fallbackReplicas": 0, "maxReplicas": 2},
        ),
        broken=scaled({"fallbackReplicas": 3, "maxReplicas": 2}),
    ),
    Examples(
        "strategy Progressive needs steps",
        at="spec.workers.rollout.steps",
        kept=rollouts(
            {},
            {"strategy": "AllAtOnce"},
            {"strategy": "Manual"},
            {"strategy": "Progressive", "steps": steps(10)},
        ),
        broken=rollouts({"strategy": "Progressive"}, {"strategy": "Progressive", "steps": []}),
    ),
    Examples(
        "steps must be in the order of their weightPercent",
        at="spec.workers.rollout.steps",
        kept=rollouts({"steps": []}, {"steps": steps(1)}, {"steps": steps(1, 50, 99)}),
        broken=rollouts({"steps": steps(50, 10)}, {"steps": steps(10, 90, 50)}),
    ),
    Examples(
        "onTimeout Terminate needs timeoutSeconds, since 0 waits for ever",
        at="spec.workers.drain.timeoutSeconds",
        kept=pools(
            {},
            {"drain": {"timeoutSeconds": 5}},
            {"drain": {"onTimeout": "Wait"}},
            {"drain": {"onTimeout": "Terminate", "timeoutSeconds": 1}},
        ),
        broken=pools(
            {"drain": {"onTimeout": "Terminate"}}, {"drain": {"onTimeout": "Terminate", "timeoutSeconds": 0}}
        ),
    ),
    Examples(
        "labels that begin with forge-jobs.dev/ are the operator's own",
        at="spec.workers.template.metadata.labels",
        kept=pools(
            {},
            {"template": template(metadata={})},
            {"template": template(metadata={"labels": {}})},
            labelled(team="shop"),
            {"template": template(metadata={"labels": {"shop.example/forge-jobs.dev": "yes"}})},
        ),
        broken=pools(
            {"template": template(metadata={"labels": {"forge-jobs.dev/version-id": "x"}})},
            {"template": template(metadata={"labels": {"team": "shop", "forge-jobs.dev/mine": "x"}})},
        ),
    ),
    Examples(
        "maxMissedRuns is for missedRunPolicy All only",
        at="spec.maxMissedRuns",
        kept=crons(
            {},
            {"missedRunPolicy": "Skip"},
            {"missedRunPolicy": "All"},
            {"missedRunPolicy": "All", "maxMissedRuns": 1},
        ),
        broken=crons({"maxMissedRuns": 1}, {"missedRunPolicy": "Skip", "maxMissedRuns": 10}),
    ),
    Examples(
        "the time zone belongs in timeZone, not in schedule",
        at="spec.schedule",
        kept=crons({"schedule": "0 3 * * *"}),
        broken=crons(
            {"schedule": "TZ=Europe/Berlin 0 3 * * *"}, {"schedule": "CRON_TZ=Europe/Berlin 0 3 * * *"}
        ),
    ),
    Examples(
        "schedule has five fields (minute hour day month weekday), six with seconds first, "
        "or is @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually",
        at="spec.schedule",
        kept=crons(
            {"schedule": "0 3 * * *"},
            {"schedule": "*/10 * * * * *"},
            {"schedule": "0  3  1,15  jan-MAR  mon#2"},
            {"schedule": "0 0 L * ?"},
            {"schedule": "@daily"},
            {"schedule": "@Hourly"},
            {"schedule": "@annually"},
        ),
        broken=crons(
            {"schedule": "0 3 * *"},
            {"schedule": "0 0 3 * * * 2030"},
            {"schedule": "@fortnightly"},
            {"schedule": "@every 5m"},
            {"schedule": "daily"},
            {"schedule": " 0 3 * * *"},
            {"schedule": "0 3 * * *\n"},
            {"schedule": "at three in the morning!"},
        ),
    ),
)

"""What is measured against what: the upstream alone, nginx, and gatewayd."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import daemons
from tests.bench import cpu, nginx
from tests.daemons import DaemonError, Gatectl

# Limits that count every request and refuse none.
PLAN = ["--rate", "1000000/s", "--burst", "1000000", "--quota", "1000000000/month", "--price", "0.001"]
_GATEWAYD_HEADERS = ("x-request-id", "ratelimit", "ratelimit-policy")


@dataclass
class Subject:
    """One way to the upstream, the processes that pay for it, and how many requests it was given."""

    name: str
    url: str
    key: str | None = None
    workers: list[int] = field(default_factory=list)  # on the measured core
    control: list[int] = field(default_factory=list)  # on the other core: gatewayd's supervisor and control
    gatectl: Gatectl | None = None
    given: int = 0


@contextmanager
def running(
    names: tuple[str, ...], folder: Path, cores: tuple[int, int], *, nginx_log: bool
) -> Iterator[list[Subject]]:
    """Start the upstream and the subjects called `names`; all keep running, and only the loaded one uses its core."""
    with ExitStack() as stack:
        api = stack.enter_context(nginx.upstream(folder, cores[1]))
        upstream_url = f"http://127.0.0.1:{api.port}"
        subjects = []
        if "direct" in names:
            subjects.append(Subject("direct", upstream_url))
        if "nginx" in names:
            key = f"gw_{secrets.token_hex(4)}_{secrets.token_hex(14)}"  # as long as one of ours
            server = stack.enter_context(nginx.gateway(folder, api.port, key, cores[0], log=nginx_log))
            subjects.append(Subject("nginx", f"http://127.0.0.1:{server.port}/bench", key, [server.worker]))
        if "gatewayd" in names:
            subjects.append(stack.enter_context(_gatewayd(folder, upstream_url, cores)))
        for subject in subjects:
            _check(subject)
        yield subjects


@contextmanager
def _gatewayd(folder: Path, upstream_url: str, cores: tuple[int, int]) -> Iterator[Subject]:
    home = folder / "gatewayd"
    home.mkdir()
    with daemons.gateway(home, workers=1, cores={cores[1]}) as gateway:
        gatectl = gateway.gatectl
        gatectl.json("service", "add", "bench", upstream_url)
        gatectl.json("plan", "add", "endless", *PLAN)
        key = gatectl.json("key", "create", "--service", "bench", "--plan", "endless")["key"]
        supervisor, *workers = gateway.pids()
        for worker in workers:
            cpu.pin(worker, cores[0])
        control = [pid for pid in cpu.children(supervisor) if pid not in workers]
        yield Subject("gatewayd", f"{gateway.url}/bench", key, workers, [supervisor, *control], gatectl)


def _check(subject: Subject) -> None:
    """It serves the key it knows, refuses another, and ours does all that its figures are said to include."""
    with httpx.Client(headers={"X-API-Key": subject.key} if subject.key else {}) as client:
        answer = client.get(f"{subject.url}/1k")
        subject.given += 1
    if answer.status_code != 200 or len(answer.content) != 1024:
        raise DaemonError(f"{subject.name} answered {answer.status_code} with {len(answer.content)} bytes")
    if subject.gatectl and (missing := [name for name in _GATEWAYD_HEADERS if name not in answer.headers]):
        raise DaemonError(f"{subject.name} sent no {missing[0]} header")
    if subject.key and httpx.get(f"{subject.url}/1k", headers={"X-API-Key": "wrong"}).status_code != 401:
        raise DaemonError(f"{subject.name} served an unknown key")


def check_usage(subject: Subject, unanswered: int) -> str:
    """gatewayd counted what wrk did, up to the requests that wrk gave up when its time was over."""
    assert subject.gatectl is not None
    counted = subject.gatectl.json("usage", "show", "--since", "24h")["total"]["requests"]
    if not subject.given <= counted <= subject.given + unanswered:
        raise DaemonError(f"usage show counts {counted} requests, wrk {subject.given} and at most {unanswered} more")
    return f"usage show counts {counted:,} requests; wrk got {subject.given:,} answers and gave up the rest at its end"

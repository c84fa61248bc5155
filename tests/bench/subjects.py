"""What is measured against what: the upstream alone, nginx, and gatewayd."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests import daemons
from tests.bench import cpu, nginx, websocket
from tests.daemons import ROOT, DaemonError, Gatectl

# Limits that count every request and refuse none.
PLAN = ["--rate", "1000000/s", "--burst", "1000000", "--quota", "1000000000/month", "--price", "0.001"]
COMPILED = "compiled"  # gatewayd as `make compiled` builds it
COMPILED_TREE = ROOT / "build" / "compiled"
TWO_WORKERS = "two workers"  # gatewayd once more, for what a second worker brings
UNRECORDED = "no journal"  # gatewayd whose workers record nothing; see `unrecorded`
SYNCED = {"synced 2/s": "second", "synced each": "record"}  # by `journal_sync`; its default is gatewayd itself
_GATEWAYD_HEADERS = ("x-request-id", "ratelimit", "ratelimit-policy")


@dataclass
class Subject:
    """One way to the upstream, the processes that pay for it, and how many requests it was given."""

    name: str
    url: str
    key: str | None = None
    limited_key: str | None = None  # one that has spent what its plan allows
    workers: list[int] = field(default_factory=list)  # on the measured core
    control: list[int] = field(default_factory=list)  # on the other core: gatewayd's supervisor and control
    gatectl: Gatectl | None = None
    records: bool = True  # what it is given is on its journal
    given: int = 0


@contextmanager
def running(
    names: tuple[str, ...], folder: Path, cores: tuple[int, ...], *, nginx_log: bool
) -> Iterator[list[Subject]]:
    """Start the upstreams and the subjects called `names`; all keep running, and only the loaded one uses its core.

    `cores`: the worker's, the load's, and the second worker's if there is one.
    """
    with ExitStack() as stack:
        api = stack.enter_context(nginx.upstream(folder, cores[1]))
        upstream_url = f"http://127.0.0.1:{api.port}"
        subjects = []
        if "direct" in names:
            subjects.append(Subject("direct", upstream_url))
        echo_port = stack.enter_context(websocket.upstream(folder, cores[1]))
        if "nginx" in names:
            keys = (_nginx_key(), _nginx_key())
            server = stack.enter_context(nginx.gateway(folder, api.port, echo_port, keys, cores[0], log=nginx_log))
            subjects.append(Subject("nginx", f"http://127.0.0.1:{server.port}/bench", *keys, [server.worker]))
        upstreams = (upstream_url, f"http://127.0.0.1:{echo_port}")
        if "gatewayd" in names:
            subjects.append(stack.enter_context(_gatewayd("gatewayd", folder, upstreams, cores[:1], cores[1])))
        if COMPILED in names:
            subjects.append(
                stack.enter_context(_gatewayd(COMPILED, folder, upstreams, cores[:1], cores[1], COMPILED_TREE))
            )
        if TWO_WORKERS in names:
            # The second worker has a core of its own where there is a third; else it shares the load's.
            own = (cores[0], cores[-1])
            subjects.append(stack.enter_context(_gatewayd(TWO_WORKERS, folder, upstreams, own, cores[1])))
        if UNRECORDED in names:
            unrecorded = _gatewayd(UNRECORDED, folder, upstreams, cores[:1], cores[1], module="tests.bench.unrecorded")
            subjects.append(stack.enter_context(unrecorded))
            subjects[-1].records = False
        for name, sync in SYNCED.items():
            if name in names:
                options = ("--journal-sync", sync)
                subjects.append(
                    stack.enter_context(_gatewayd(name, folder, upstreams, cores[:1], cores[1], options=options))
                )
        for subject in subjects:
            _check(subject)
        yield subjects


def compiled_copy_is_current() -> bool:
    """Whether there is a compiled copy, made of the source as it stands. Raises DaemonError if it is of another one."""
    if not any(COMPILED_TREE.glob("*.so")):
        return False
    package = ROOT / "gatewayd"
    for source in package.rglob("*.py"):
        copy = COMPILED_TREE / source.relative_to(ROOT)
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            raise DaemonError(f"build/compiled is not of this source ({source.relative_to(ROOT)}); run make compiled")
    return True


def _nginx_key() -> str:
    return f"gw_{secrets.token_hex(4)}_{secrets.token_hex(14)}"  # as long as one of ours


@contextmanager
def _gatewayd(
    name: str,
    folder: Path,
    upstreams: tuple[str, str],
    worker_cores: tuple[int, ...],
    core: int,
    tree: Path = ROOT,
    module: str = "gatewayd",
    options: tuple[str, ...] = (),
) -> Iterator[Subject]:
    """One worker on each of `worker_cores`, all else on `core`."""
    home = folder / name.replace("/", "-")
    home.mkdir()
    with daemons.gateway(
        home, workers=len(worker_cores), cores={core}, options=options, tree=tree, module=module
    ) as gateway:
        gatectl = gateway.gatectl
        gatectl.json("service", "add", "bench", upstreams[0])
        gatectl.json("service", "add", "echo", upstreams[1], "--path", "/bench/echo")
        gatectl.json("plan", "add", "endless", *PLAN)
        gatectl.json("plan", "add", "spent", "--rate", "1/day", "--burst", "1")
        services = ("--service", "bench", "--service", "echo")
        key = gatectl.json("key", "create", *services, "--plan", "endless")["key"]
        limited_key = gatectl.json("key", "create", *services, "--plan", "spent")["key"]
        supervisor, *workers = gateway.pids()
        for worker, own in zip(workers, worker_cores, strict=True):
            cpu.pin(worker, own)
        control = [pid for pid in cpu.children(supervisor) if pid not in workers]
        yield Subject(name, f"{gateway.url}/bench", key, limited_key, workers, [supervisor, *control], gatectl)


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
    if subject.limited_key:
        spent = [httpx.get(f"{subject.url}/1k", headers={"X-API-Key": subject.limited_key}) for _ in range(2)]
        subject.given += 1
        if [answer.status_code for answer in spent] != [200, 429]:
            raise DaemonError(f"{subject.name} does not limit: {[answer.status_code for answer in spent]}")


def check_usage(subject: Subject, unanswered: int) -> str:
    """gatewayd counted what wrk did, up to the requests that wrk gave up when its time was over."""
    assert subject.gatectl is not None
    counted = subject.gatectl.json("usage", "show", "--since", "24h")["total"]["requests"]
    if not subject.given <= counted <= subject.given + unanswered:
        raise DaemonError(f"usage show counts {counted} requests, wrk {subject.given} and at most {unanswered} more")
    return f"usage show counts {counted:,} requests; wrk got {subject.given:,} answers and gave up the rest at its end"

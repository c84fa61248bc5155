"""The figures: one line a measurement, then the medians that the bars of the specification are about."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.cases import Case
from tests.bench.subjects import SYNCED, UNRECORDED

CPU_BAR = 2.0  # times nginx's, SPEC 8
CPU_WISH = 1.35
LATENCY_BAR_MS = 0.25  # added at one connection, SPEC 8
JOURNAL_BAR_US = 3.0
SHARED_CORE = (
    "the second worker shares its core with the load: requests/s cannot show what it brings, CPU a request can "
    "(1.00: no worker stands in another's way)"
)
WAITING = ("synced each",)  # for the disk, with its core idle
# wrk with 32 connections keeps a worker at 95% and more; below this something else took one of the two cores.
_UNDISTURBED = 0.85


@dataclass(frozen=True)
class Measurement:
    """One load on one subject in one round."""

    case: str
    round: int
    subject: str
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the worker, a request; 0 without a gateway
    control_us: float  # of supervisor and control, a request, up to when they were idle again
    busy: float  # share of the time that the worker's core was at work


HEADING = (
    f"{'case':<15} {'round':>5}  {'subject':<11} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} "
    f"{'CPU µs':>7} {'control µs':>10} {'busy':>5}"
)


def row(m: Measurement) -> str:
    cpu = f"{m.cpu_us:7.1f} {m.control_us:10.1f} {m.busy:5.0%}" if m.cpu_us else f"{'-':>7} {'-':>10} {'-':>5}"
    return f"{m.case:<15} {m.round:>5}  {m.subject:<11} {m.per_second:>10,.0f} {m.p50_ms:>8.3f} {m.p99_ms:>8.3f} {cpu}"


@dataclass(frozen=True)
class Ratios:
    """A case's medians over the rounds. Ratios are taken within a round, so that a drift of the machine cancels out."""

    case: str
    cpu: float | None = None  # gatewayd's worker to nginx's
    cpu_compiled: float | None = None
    cpu_with_control: float | None = None
    per_second: float | None = None
    p50: float | None = None
    added_ms_gatewayd: float | None = None  # median latency above the upstream's own
    added_ms_nginx: float | None = None
    workers_cpu: float | None = None  # two workers to one
    workers_per_second: float | None = None
    journal_us: float | None = None  # what a record costs a request
    sync_cpu: tuple[float | None, ...] = ()  # synced to not synced, in the order of SYNCED
    sync_per_second: tuple[float | None, ...] = ()
    sync_p50: tuple[float | None, ...] = ()


def ratios(case: Case, measured: Sequence[Measurement]) -> Ratios:
    of = {(m.round, m.subject): m for m in measured if m.case == case.name}

    def median(over: str, under: str, value: Callable[[Measurement, Measurement], float]) -> float | None:
        pairs = [(of[n, over], of[n, under]) for n, subject in of if subject == over and (n, under) in of]
        return round(statistics.median(value(a, b) for a, b in pairs), 4) if pairs else None

    return Ratios(
        case.name,
        cpu=median("gatewayd", "nginx", lambda ours, its: ours.cpu_us / its.cpu_us),
        cpu_compiled=median("compiled", "nginx", lambda ours, its: ours.cpu_us / its.cpu_us),
        cpu_with_control=median("gatewayd", "nginx", lambda ours, its: (ours.cpu_us + ours.control_us) / its.cpu_us),
        per_second=median("gatewayd", "nginx", lambda ours, its: ours.per_second / its.per_second),
        p50=median("gatewayd", "nginx", lambda ours, its: ours.p50_ms / its.p50_ms),
        added_ms_gatewayd=median("gatewayd", "direct", lambda ours, bare: ours.p50_ms - bare.p50_ms),
        added_ms_nginx=median("nginx", "direct", lambda its, bare: its.p50_ms - bare.p50_ms),
        workers_cpu=median("two workers", "gatewayd", lambda two, one: two.cpu_us / one.cpu_us),
        workers_per_second=median("two workers", "gatewayd", lambda two, one: two.per_second / one.per_second),
        journal_us=median("gatewayd", UNRECORDED, lambda ours, bare: ours.cpu_us - bare.cpu_us),
        sync_cpu=tuple(median(name, "gatewayd", lambda a, b: a.cpu_us / b.cpu_us) for name in SYNCED),
        sync_per_second=tuple(median(name, "gatewayd", lambda a, b: a.per_second / b.per_second) for name in SYNCED),
        sync_p50=tuple(median(name, "gatewayd", lambda a, b: a.p50_ms / b.p50_ms) for name in SYNCED),
    )


def summary(case: Case, r: Ratios) -> list[str]:
    lines = []
    if r.cpu is not None:
        lines.append(
            f"CPU a request, gatewayd's worker to nginx's: {r.cpu:.2f}{_verdict(case, 'get-1k', r.cpu, CPU_BAR)}"
        )
        lines.append(f"  with supervisor and control: {r.cpu_with_control:.2f}")
        if r.cpu_compiled is not None:
            lines.append(f"  compiled: {r.cpu_compiled:.2f}{_verdict(case, 'get-1k', r.cpu_compiled, CPU_BAR)}")
        lines.append(f"requests/s: {r.per_second:.2f}, median latency: {r.p50:.2f} times nginx's")
    for name, added in (("gatewayd", r.added_ms_gatewayd), ("nginx", r.added_ms_nginx)):
        if added is not None and case.connections == 1:
            verdict = _verdict(case, "one-connection", added, LATENCY_BAR_MS) if name == "gatewayd" else ""
            lines.append(f"median latency added by {name}: {added:.3f} ms{verdict}")
    if r.workers_per_second is not None:
        lines.append(f"two workers to one: requests/s {r.workers_per_second:.2f}, CPU a request {r.workers_cpu:.2f}")
    if r.journal_us is not None:
        lines.append(
            f"the journal: {r.journal_us:.1f} µs a request{_verdict(case, 'journal', r.journal_us, JOURNAL_BAR_US)}"
        )
    for sync, cpu, per_second, p50 in zip(SYNCED.values(), r.sync_cpu, r.sync_per_second, r.sync_p50, strict=False):
        if cpu is not None:
            lines.append(
                f"journal_sync {sync} to process: CPU {cpu:.2f}, requests/s {per_second:.2f}, median latency {p50:.2f}"
            )
    return [f"{case.name:<15} {line}" for line in lines]


def _verdict(case: Case, of: str, value: float, bar: float) -> str:
    if case.name != of:
        return ""
    wish = f", {CPU_WISH} wanted" if bar == CPU_BAR else ""
    return f" (bar {bar}{wish}: {'met' if value <= bar else 'MISSED'})"


def disturbed(case: Case, measured: Sequence[Measurement]) -> list[str]:
    """Which runs had no core for themselves: requests/s and latency of those say little, CPU a request is too high."""
    runs = [
        m for m in measured if m.case == case.name and m.cpu_us and m.subject not in WAITING and m.busy < _UNDISTURBED
    ]
    if case.connections < 32 or case.websocket or case.scales or not runs:
        return []
    names = ", ".join(f"{m.subject} in round {m.round}" for m in runs)
    return [
        f"{case.name:<15} DISTURBED, repeat on an idle machine: the worker's core was below {_UNDISTURBED:.0%}: {names}"
    ]


def as_json(environment: dict[str, Any], measured: Sequence[Measurement], found: Sequence[Ratios]) -> dict[str, Any]:
    return {
        "environment": environment,
        "measurements": [asdict(m) for m in measured],
        "median_ratios": [asdict(r) for r in found],
    }

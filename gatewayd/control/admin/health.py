"""What is wrong with the gateway, each with the command to type next, in the order in which it hurts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from gatewayd.control.admin.accidents import Noted
from gatewayd.control.admin.state import JournalView, TargetView, WorkerView
from gatewayd.control.certificates import expires_at
from gatewayd.control.segments import LEAST_FREE_BYTES
from gatewayd.policy.amounts import format_time, parse_time
from gatewayd.settings import Settings

BEHIND_S = 10  # ingest looks five times a second
_SOON_S = 14 * 86400
_MOST_NAMED = 5  # targets; of more there is a count
# Of a target: the state that is told where those who see it differ.
_WORST_FIRST = ("drained", "unhealthy", "open", "ejected", "half-open", "checking", "healthy")
_ILL = ("unhealthy", "open", "ejected", "half-open")


class Trouble(msgspec.Struct):
    """`command`: what to type next; empty where there is nothing to type."""

    problem: str
    command: str = ""


def problems_of(workers: Sequence[WorkerView], journal: JournalView, noted: Noted) -> list[Trouble]:
    """Of workers and journals. Of accidents that are over: those that nobody has taken note of."""
    troubles = []
    if not any(worker.state == "serving" for worker in workers):
        troubles.append(Trouble("no worker is serving", "journalctl -u gatewayd -n 50"))
    troubles += [
        Trouble(f"worker {worker.slot} is gone", "journalctl -u gatewayd -n 50")
        for worker in workers
        if worker.state == "gone"
    ]
    if journal.full or journal.error:
        why = journal.error or "the disk is full"
        troubles.append(Trouble(f"the journal cannot be written: {why}", "gatectl doctor"))
    if lost := noted.new("lost", journal.lost):
        told = f"{of_all(lost, journal.lost, 'request')} served and not recorded, since the journal had no room"
        troubles.append(Trouble(told, "gatectl doctor"))
    if journal.failure:
        troubles.append(Trouble(f"usage is not being stored, journals are kept: {journal.failure}", "gatectl doctor"))
    if journal.waiting_s > BEHIND_S:
        behind = f"usage is {journal.waiting_s} s behind: {journal.waiting_records} records wait in the journals"
        troubles.append(Trouble(behind, "gatectl top"))
    if torn := noted.new("torn", journal.torn):
        told = f"{of_all(torn, journal.torn, 'torn record')} dropped from the journal"
        troubles.append(Trouble(told, "gatectl doctor"))
    if damaged := noted.unseen(journal).damaged:
        named = ", ".join(damaged)
        troubles.append(Trouble(f"journal files are damaged and were set aside, not billed: {named}", "gatectl doctor"))
    return troubles


def of_all(new: int, count: int, what: str) -> str:
    """`3 torn records were`, or how many more, where some of all were acknowledged before."""
    told = f"{new}{'' if new == count else ' more'} {what}{'s' * (new != 1)}"
    return f"{told}{'' if new == count else f' ({count} in all)'} {'was' if new == 1 else 'were'}"


def ill_targets(views: Mapping[int, Sequence[TargetView]], services: Mapping[int, tuple[str, str]]) -> list[Trouble]:
    """Of services that there are, by number with slug and tenant. A drained target is meant to be."""
    ill = []
    for number, (slug, tenant) in services.items():
        for url in dict.fromkeys(view.url for view in views.get(number, ())):
            state = state_of((url, False), views[number])
            if is_ill(state):
                errors = [view.error for view in views[number] if view.url == url and view.error]
                elsewhere = "" if tenant == "default" else f" -t {tenant}"
                why = f": {errors[0]}" if errors else ""
                told = f"target {url} of service {slug} is {state}{why}"
                ill.append(Trouble(told, f"gatectl service health {slug}{elsewhere}"))
    if len(ill) > _MOST_NAMED:
        more = Trouble(f"{len(ill) - _MOST_NAMED} more targets are not well", "gatectl top --view targets")
        return [*ill[:_MOST_NAMED], more]
    return ill


def state_of(target: tuple[str, bool], views: Sequence[TargetView]) -> str:
    """Of a URL that is drained or not: the worst that anybody says of it. Of whom nobody says anything, all is well."""
    url, drained = target
    said = {view.state for view in views if view.url == url} | {"drained" if drained else "healthy"}
    return min(said, key=_WORST_FIRST.index)


def is_ill(state: str) -> bool:
    return state in _ILL


class Certificate(msgspec.Struct):
    """`expires_at` is null where the file cannot be read, which `error` says why."""

    setting: str
    file: str
    expires_at: str | None = None
    error: str | None = None


def certificates_of(settings: Settings) -> list[Certificate]:
    """Those of the gateway itself."""
    found = []
    for setting in ("tls_cert", "admin_tls_cert"):
        file = getattr(settings, setting, None)
        if file is None:
            continue
        shown = Certificate(setting, str(file))
        try:
            shown.expires_at = format_time(expires_at(file))
        except OSError as error:
            shown.error = (error.strerror or str(error)).lower()
        except ValueError as error:
            shown.error = f"no certificate in PEM form ({error})"
        found.append(shown)
    return found


def certificate_problems(certificates: Sequence[Certificate], now_s: int) -> list[Trouble]:
    """What is renewed in time is renewed a month before; two weeks are left to see that it was not."""
    troubles = []
    for each in certificates:
        what = f"the certificate {each.file} ({each.setting})"
        if each.expires_at is None:
            troubles.append(Trouble(f"{what} cannot be read: {each.error}", f"ls -l {each.file}"))
            continue
        left_s = parse_time(each.expires_at) - now_s
        command = f"openssl x509 -noout -dates -in {each.file}"
        if left_s <= 0:
            troubles.append(Trouble(f"{what} expired at {each.expires_at}", command))
        elif left_s < _SOON_S:
            troubles.append(Trouble(f"{what} expires in {left_s // 86400} days, at {each.expires_at}", command))
    return troubles


def disk_problems(free_bytes: int, folder: Path) -> list[Trouble]:
    if free_bytes >= LEAST_FREE_BYTES:
        return []
    return [Trouble(f"the disk of {folder} has {free_bytes >> 20} MiB left", f"df -h {folder}")]

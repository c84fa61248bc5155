"""What is wrong, or soon will be, and how to mend it: one list of checks, each a function of its own.

A check looks, and changes nothing. `ok` needs nobody, `warning` somebody by and by, `failed` somebody now.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from gatewayd.control.admin import accidents
from gatewayd.control.admin.accidents import Noted, Past
from gatewayd.control.admin.answers import answer
from gatewayd.control.admin.changes import change, now_s
from gatewayd.control.admin.documented import documented
from gatewayd.control.admin.findings import Finding, Patient, Verdict, some
from gatewayd.control.admin.health import BEHIND_S, of_all
from gatewayd.control.admin.inputs import Nothing, read_body, read_query
from gatewayd.control.admin.state import ControlState, JournalView, TargetView, WorkerView, control_of
from gatewayd.control.admin.surroundings import certificates_last, schema_is_ours, socket_is_guarded, targets_are_well
from gatewayd.control.tables import Alert, AlertEvent, Cycle, Rollup, Tenant
from gatewayd.control.verification import verify_newest
from gatewayd.policy.amounts import format_time

_LIMIT_SETTING = "journal_limit_bytes"  # which a worker names where it is the reason
_GIB = 1 << 30
_DISK_LOW_BYTES, _DISK_OUT_BYTES = 2 * _GIB, _GIB // 4
_DISK_LOW_PART = 20  # a twentieth of the disk is left
_CLOCK_STEP_S = 5  # what NTP does not slew but steps
_AHEAD_S = 3600 + 300  # rollups are of hours, and begin at their start
_CLOSED_WITHIN_S = 3600  # after a cycle is due (`invoice_after_s`): the clock looks once a minute
# To make an invoice of 100,000 keys anew takes seconds, and to compare it with its usage more.
_INVOICES, _INVOICE_BYTES = 3, 1 << 20
_UNDELIVERED_S = 3600
_NOTE = "'gatectl doctor --acknowledge' takes note of it"
_GIVEN_UP_SHOWN_S = 7 * 86400

_alert, _event, _cycle, _rollup, _tenant = (
    table.__table__  # type: ignore[union-attr]
    for table in (Alert, AlertEvent, Cycle, Rollup, Tenant)
)


class Diagnosis(msgspec.Struct):
    """`past`: accidents that nobody has taken note of yet, as `acknowledge` takes them."""

    state: Literal["ok", "degraded"]
    checks: list[Finding]
    past: Past


def workers_serve(patient: Patient) -> Verdict:
    serving = sum(worker.state == "serving" for worker in patient.workers)
    many = len(patient.workers)
    detail = f"{serving} of {many} {'worker serves' if many == 1 else 'workers serve'}"
    if serving == many and serving:
        return Verdict("ok", detail)
    return Verdict("failed", detail, "see the log of gatewayd, which restarts a worker that ends")


def journal_can_be_written(patient: Patient) -> Verdict:
    journal, settings = patient.journal, patient.control.settings
    if not journal.full and not journal.error:
        well, unrecorded = "every worker has a segment to write to", "served and not recorded, for want of room"
        if new := patient.noted.new("lost", journal.lost):
            mend = f"nobody is billed for them; with on_full = refuse they would be refused; {_NOTE}"
            return Verdict("warning", f"{of_all(new, journal.lost, 'request')} {unrecorded}", mend)
        if note := patient.noted.of("lost"):
            return Verdict("ok", f"{well}; {of_all(journal.lost, journal.lost, 'request')} {unrecorded}, {note}")
        return Verdict("ok", well)
    detail = "a worker cannot make another segment"
    if journal.full:
        then = "serves unrecorded" if settings.on_full == "serve" else "answers 503 journal_full"
        detail = f"a worker has no room for records, and {then} (on_full) until it has"
    mend = f"make room on the disk of {settings.state_dir}, or see its errors in the kernel's log; it goes on by itself"
    if _LIMIT_SETTING in journal.error:
        mend = f"see 'ingest': records are not taken out as fast as they come; or set {_LIMIT_SETTING} higher"
    return Verdict("failed", f"{detail}: {journal.error}" if journal.error else detail, mend)


def usage_is_stored(patient: Patient) -> Verdict:
    if patient.journal.failure:
        mend = "see that nothing else holds the database and that its disk has room; nothing is lost meanwhile"
        return Verdict("failed", f"records cannot be stored, journals are kept: {patient.journal.failure}", mend)
    journal = patient.journal
    waiting = f"{journal.waiting_records} records wait in the journals, {_size(journal.waiting_bytes)}"
    if journal.waiting_s <= BEHIND_S:
        return Verdict("ok", waiting)
    mend = "give control more CPU, or wait for the rush to end"
    return Verdict("warning", f"{waiting}, the oldest for {journal.waiting_s} s: control is behind the workers", mend)


def segments_are_whole(patient: Patient) -> Verdict:
    journal, noted = patient.journal, patient.noted
    if unseen := noted.unseen(journal).damaged:
        folder = patient.control.settings.state_dir / "journal"
        mend = f"'gatewayd journal FILE' shows what can be read of them; move them out of {folder}, or {_NOTE}"
        return Verdict("failed", f"set aside as damaged, and not billed: {some(unseen)}", mend)
    if not journal.damaged:
        return Verdict("ok", "no file of the journal was set aside")
    seen = [f"{name} ({noted.of_file(name)})" for name in journal.damaged]
    return Verdict("ok", f"set aside as damaged, and not billed: {some(seen)}")


def records_are_whole(patient: Patient) -> Verdict:
    torn, dropped = patient.journal.torn, "dropped and not billed"
    if new := patient.noted.new("torn", torn):
        why = "a power cut does that, or a bad disk: see the kernel's log; the rest of each segment is billed"
        return Verdict("warning", f"{of_all(new, torn, 'torn record')} {dropped}", f"{why}; {_NOTE}")
    if note := patient.noted.of("torn"):
        return Verdict("ok", f"{of_all(torn, torn, 'torn record')} {dropped}, {note}")
    return Verdict("ok", "no record was torn")


def disk_has_room(patient: Patient) -> Verdict:
    folder = patient.control.settings.state_dir
    disk = shutil.disk_usage(folder)
    detail = f"{_size(disk.free)} of {_size(disk.total)} free for {folder}"
    if disk.free < _DISK_OUT_BYTES:
        return Verdict("failed", detail, "make room: without it requests are refused with 503 (on_full)")
    if disk.free < _DISK_LOW_BYTES and disk.free * _DISK_LOW_PART < disk.total:
        return Verdict("warning", detail, "make room, or move the state folder to a larger disk (--state-dir)")
    return Verdict("ok", detail)


def state_is_private(patient: Patient) -> Verdict:
    folder = patient.control.settings.state_dir
    wrong = [path for path in (folder, patient.control.database.path) if _is_open_to_others(path)]
    if not wrong:
        return Verdict("ok", f"{folder} is for its user alone")
    mend = f"chmod 700 {folder} && chmod 600 {patient.control.database.path}"
    return Verdict("failed", f"others may read or write {some([str(path) for path in wrong])}", mend)


def clock_is_steady(patient: Patient) -> Verdict:
    stepped_s = _wall_less_boot_s() - _WALL_LESS_BOOT_S
    if abs(stepped_s) > _CLOCK_STEP_S:
        way = "forward" if stepped_s > 0 else "back"
        detail = f"the clock was set {way} by {abs(stepped_s):.0f} s since control began"
        mend = "see that NTP runs; usage is billed by the clock. 'systemctl restart gatewayd' begins anew"
        return Verdict("warning", detail, mend)
    latest = select(func.max(_rollup.c.hour)).where(_rollup.c.tenant_id == _tenant.c.id).correlate(_tenant)
    hour = patient.connection.execute(select(func.max(latest.scalar_subquery())).select_from(_tenant)).scalar()
    if hour is not None and hour > patient.now_s + _AHEAD_S:
        detail = f"usage is recorded in the future, up to {format_time(hour)}"
        return Verdict("failed", detail, "set the clock right: the last cycle and its bill depend on it")
    return Verdict("ok", f"it is {format_time(patient.now_s)}, and no usage is later")


def cycles_are_closed(patient: Patient) -> Verdict:
    after_s = patient.control.settings.invoice_after_s
    if after_s < 0:
        return Verdict("ok", "cycles are closed by hand (invoice_after_s)")
    due = (_cycle.c.closed_at.is_(None), _cycle.c.ends_at < patient.now_s - after_s - _CLOSED_WITHIN_S)
    query = select(_tenant.c.slug, _cycle.c.period).join_from(_cycle, _tenant, _cycle.c.tenant_id == _tenant.c.id)
    rows = patient.connection.execute(query.where(*due).order_by(_cycle.c.ends_at)).all()
    if not rows:
        return Verdict("ok", "every cycle that is over has its invoice")
    slug, period = rows[0]
    mend = f"gatectl billing close --period {period} -t {slug}"
    return Verdict("warning", f"over, and without an invoice: {some([f'{p} of {t}' for t, p in rows])}", mend)


def alerts_arrive(patient: Patient) -> Verdict:
    live = select(_alert.c.public_id).where(_alert.c.removed_at.is_(None))
    disabled = patient.connection.execute(live.where(_alert.c.disabled_at.is_not(None))).scalars().all()
    if disabled:
        mend = f"gatectl alert test {disabled[0]} enables it again if it arrives; else remove it"
        return Verdict("failed", f"disabled, since the receiver answered 410: {some(disabled)}", mend)
    of_alert = live.join(_event, _event.c.alert_id == _alert.c.id).distinct().order_by(_alert.c.public_id)
    given_up = of_alert.where(
        _event.c.created_at > patient.now_s - _GIVEN_UP_SHOWN_S,
        _event.c.next_at.is_(None),
        _event.c.delivered_at.is_(None),
        _event.c.attempts > 1,  # a test is tried once, and whoever asked for it knows
    )
    late = of_alert.where(_event.c.next_at.is_not(None), _event.c.created_at < patient.now_s - _UNDELIVERED_S)
    failing = of_alert.where(_event.c.next_at.is_not(None), _event.c.attempts > 0)
    for state, what, query in (
        ("failed", "events were given up", given_up),
        ("warning", "events wait", late),
        ("warning", "the last attempt failed, and another will follow", failing),
    ):
        if found := patient.connection.execute(query).scalars().all():
            mend = f"gatectl alert show {found[0]} tells why; mend the receiver, then gatectl alert test {found[0]}"
            return Verdict(state, f"{what}: {some(found)}", mend)  # type: ignore[arg-type]
    count = len(patient.connection.execute(live).all())
    return Verdict("ok", f"{count} alert{'s' * (count != 1)}, nothing is late")


def invoices_are_true(patient: Patient) -> Verdict:
    """The newest: they are the ones that somebody may still be about to pay."""
    count, differences = verify_newest(patient.connection, _INVOICES, _INVOICE_BYTES)
    if not differences:
        return Verdict("ok", f"what the ledger makes of them; looked at the last {count}" if count else "none yet")
    names = dict.fromkeys(str(each.invoice) for each in differences)
    return Verdict("failed", f"altered after they were issued: {some(names)}", "gatectl billing verify names what")


# In the order in which they hurt. To add one: a function that looks at a Patient, and its line here.
CHECKS: tuple[tuple[str, Callable[[Patient], Verdict]], ...] = (
    ("workers", workers_serve),
    ("journal", journal_can_be_written),
    ("ingest", usage_is_stored),
    ("segments", segments_are_whole),
    ("records", records_are_whole),
    ("disk", disk_has_room),
    ("permissions", state_is_private),
    ("socket", socket_is_guarded),
    ("schema", schema_is_ours),
    ("certificates", certificates_last),
    ("targets", targets_are_well),
    ("clock", clock_is_steady),
    ("cycles", cycles_are_closed),
    ("alerts", alerts_arrive),
    ("invoices", invoices_are_true),
)


@documented("Examine the gateway", query=Nothing, answer=Diagnosis)
async def examine(request: Request) -> Response:
    """Every check; `state` is ok if each is."""
    read_query(request, Nothing)
    return answer(await _examined(control_of(request)))


@documented(
    "Take note of accidents that are over",
    query=Nothing,
    body=Past,
    answer=Diagnosis,
    rules="they are among those that there are",
)
async def acknowledge(request: Request) -> Response:
    """What `past` of an examination said, or some of it: it degrades the gateway no more, and stays on record.

    Answers as the examination does, after that.
    """
    read_query(request, Nothing)
    seen, control = await read_body(request, Past), control_of(request)
    control.plane.keep_losses()  # or a crash could forget them, and as many to come would count as noted
    with change(request) as made:
        accidents.acknowledge(made, seen, control.plane.journal())
    return answer(await _examined(control))


async def _examined(control: ControlState) -> Diagnosis:
    plane = control.plane
    return await run_in_threadpool(_examine, control, plane.workers(), plane.journal(), plane.all_targets())


def _examine(
    control: ControlState, workers: list[WorkerView], journal: JournalView, views: Mapping[int, Sequence[TargetView]]
) -> Diagnosis:
    with control.database.read() as session:
        noted = Noted.read(session.connection())
        patient = Patient(control, session.connection(), workers, journal, views, now_s(), noted)
        checks = [Finding(name, *look(patient)) for name, look in CHECKS]
    well = all(finding.state == "ok" for finding in checks)
    return Diagnosis("ok" if well else "degraded", checks, noted.unseen(journal))


def _wall_less_boot_s() -> float:
    """What setting the clock changes, and neither time nor a suspended machine does."""
    return (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9


_WALL_LESS_BOOT_S = _wall_less_boot_s()  # when control began


def _is_open_to_others(path: os.PathLike[str]) -> bool:
    return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o077)  # noqa: PTH116 (any path)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB" if size_bytes >= _GIB else f"{size_bytes >> 20} MiB"

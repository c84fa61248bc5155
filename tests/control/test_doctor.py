"""The doctor: each check is well at first, finds what is wrong with it, and says how to mend that."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from gatewayd.control import outbox
from gatewayd.control.admin import doctor
from gatewayd.control.admin.changes import now_s
from gatewayd.control.admin.state import JournalView, TargetView
from gatewayd.control.rollups import Rollups
from gatewayd.control.tables import Alert, AlertEvent, Cycle
from gatewayd.proxy.journal import Journal
from gatewayd.records import ADMITTED, Record
from tests.control.conftest import Admin

JOURNAL = JournalView(segments=1, torn=0, full=False)
DAY_S = 86400


class Disk(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def well(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine of the test is like."""
    admin.control.settings.state_dir.chmod(0o700)
    admin.control.settings.admin_socket.touch(0o660)
    admin.control.database.path.chmod(0o600)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(100 << 30, 50 << 30, 50 << 30))


def found(admin: Admin, check: str) -> Any:
    """What this check says; all others are well."""
    told = admin.get("/v1/doctor")
    others = [each for each in told["checks"] if each["check"] != check and each["state"] != "ok"]
    assert others == []
    finding = next(each for each in told["checks"] if each["check"] == check)
    assert told["state"] == ("ok" if finding["state"] == "ok" else "degraded")
    assert bool(finding["mend"]) == (finding["state"] != "ok")
    return finding


def test_a_gateway_that_is_well(admin: Admin) -> None:
    told = admin.get("/v1/doctor")
    assert [(each["state"], each["mend"]) for each in told["checks"]] == [("ok", "")] * len(doctor.CHECKS)
    assert told["state"] == "ok"


@pytest.mark.parametrize(
    ("check", "state", "journal", "says"),
    [
        ("journal", "failed", JOURNAL.__class__(1, 0, full=True), "no room for records, and answers 503"),
        ("journal", "failed", JOURNAL.__class__(1, 0, full=False, error="No space left on device"), "No space left"),
        ("journal", "warning", JOURNAL.__class__(1, 0, full=False, lost=7), "7 requests were served and not recorded"),
        ("ingest", "failed", JOURNAL.__class__(1, 0, full=False, failure="database is locked"), "database is locked"),
        ("ingest", "ok", JOURNAL.__class__(40, 0, full=False, waiting_records=900, waiting_s=10), "900 records"),
        ("ingest", "warning", JOURNAL.__class__(4, 0, full=False, waiting_records=9, waiting_s=11), "for 11 s"),
        ("segments", "failed", JOURNAL.__class__(1, 0, full=False, damaged=("ab-1.gwj",)), "ab-1.gwj"),
        ("records", "warning", JOURNAL.__class__(1, 3, full=False), "3 torn records"),
    ],
)
def test_the_journal(admin: Admin, check: str, state: str, journal: JournalView, says: str) -> None:
    admin.plane.journal_view = journal
    finding = found(admin, check)
    assert finding["state"] == state
    assert says in finding["detail"]


def accidents(torn: int = 0, lost: int = 0, *damaged: str) -> JournalView:
    return JournalView(1, torn, full=False, lost=lost, damaged=damaged)


@pytest.mark.parametrize(
    ("check", "seen", "journal", "stays", "more", "says"),
    [
        ("records", {"torn": 3}, accidents(3), "3 torn records", accidents(5), "2 more torn records (5 in all)"),
        ("journal", {"lost": 7}, accidents(0, 7), "7 requests", accidents(0, 8), "1 more request (8 in all) was"),
        ("segments", {"damaged": ["a.damaged"]}, accidents(0, 0, "a.damaged"), "a.damaged (acknowledged at",
         accidents(0, 0, "a.damaged", "b.damaged"), "not billed: b.damaged"),
    ],
)  # fmt: skip
def test_an_accident_is_told_until_somebody_has_taken_note_and_the_next_one_again(
    admin: Admin, check: str, seen: dict[str, Any], journal: JournalView, stays: str, more: JournalView, says: str
) -> None:
    admin.plane.journal_view = journal
    assert "gatectl doctor --acknowledge" in found(admin, check)["mend"]
    told = admin.get("/v1/doctor")
    assert told["past"] == {"torn": 0, "lost": 0, "damaged": [], **seen}
    told = admin.post("/v1/doctor/acknowledge", **seen)
    assert (told["state"], told["past"]) == ("ok", {"torn": 0, "lost": 0, "damaged": []})
    detail = found(admin, check)["detail"]
    assert stays in detail
    assert "acknowledged at 20" in detail
    assert " by uid:" in detail or " by root" in detail
    status = admin.get("/v1/status")
    assert (status["state"], status["problems"]) == ("ok", [])

    admin.plane.journal_view = more
    assert says in found(admin, check)["detail"]
    assert admin.get("/v1/status")["state"] == "degraded"


def test_what_was_acknowledged_is_in_the_audit_once(admin: Admin) -> None:
    for torn in (3, 3, 5):
        admin.plane.journal_view = accidents(torn, 0, "a.damaged")
        admin.post("/v1/doctor/acknowledge", torn=torn, damaged=["a.damaged"])
    lines = admin.get("/v1/audit")["items"]
    assert [(line["action"], line["subject"], line["before"], line["after"]) for line in lines] == [
        ("doctor.acknowledge", "journal", {"torn": 3}, {"torn": 5}),
        ("doctor.acknowledge", "journal", None, {"torn": 3, "damaged:a.damaged": 1}),
    ]


def test_what_is_acknowledged_is_on_record_first(admin: Admin) -> None:
    """A count that were noted and then forgotten by a crash would let as many new accidents pass in silence."""
    admin.plane.journal_view = accidents(0, 3)
    admin.post("/v1/doctor/acknowledge", lost=3)
    assert admin.plane.told == ["losses kept"]


def test_what_nobody_can_have_seen_is_not_acknowledged(admin: Admin) -> None:
    """Else the next accident would be passed over in silence."""
    admin.plane.journal_view = accidents(3, 1, "a.damaged")
    for body in ({"torn": 4}, {"lost": 2}, {"damaged": ["b.damaged"]}):
        admin.refused("invalid", "POST", "/v1/doctor/acknowledge", body)
    long = admin.refused("invalid", "POST", "/v1/doctor/acknowledge", {"damaged": ["b" * 50_000]})
    assert len(long["detail"]) < 200, "not all of it is sent back"
    assert admin.post("/v1/doctor/acknowledge", torn=2)["past"] == {"torn": 3, "lost": 1, "damaged": ["a.damaged"]}
    detail = next(each["detail"] for each in admin.get("/v1/doctor")["checks"] if each["check"] == "records")
    assert detail.startswith("1 more torn record (3 in all) was")


def test_journals_at_their_limit_are_not_mended_by_room_on_the_disk(admin: Admin) -> None:
    """They are full since records are not taken out of them; the reason is as a worker says it."""
    folder = admin.control.settings.state_dir / "journal"
    folder.mkdir()
    error = Journal(folder, b"w" * 16, 1, 0).error
    admin.plane.journal_view = JournalView(1, 0, full=True, error=error)
    finding = found(admin, "journal")
    assert error in finding["detail"]
    assert "see 'ingest'" in finding["mend"]
    assert "disk" not in finding["mend"]


def test_workers(admin: Admin) -> None:
    admin.plane.state = "gone"
    assert found(admin, "workers")["detail"] == "0 of 1 worker serves"


@pytest.mark.parametrize(
    ("total", "free", "state"),
    [
        (100 << 30, 3 << 30, "ok"),
        (100 << 30, 1 << 30, "warning"),
        (8 << 30, 1 << 30, "ok"),
        (8 << 30, 1 << 20, "failed"),
    ],
)
def test_the_disk(admin: Admin, monkeypatch: pytest.MonkeyPatch, total: int, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(total, total - free, free))
    assert found(admin, "disk")["state"] == state


def test_what_others_may_read(admin: Admin) -> None:
    admin.control.database.path.chmod(0o644)
    finding = found(admin, "permissions")
    assert finding["state"] == "failed"
    assert "chmod 600" in finding["mend"]


def test_a_clock_that_was_set(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_WALL_LESS_BOOT_S", doctor._wall_less_boot_s() - 100)
    assert "set forward by 100 s" in found(admin, "clock")["detail"]
    monkeypatch.setattr(doctor, "_WALL_LESS_BOOT_S", doctor._wall_less_boot_s() + 100)
    assert "set back by 100 s" in found(admin, "clock")["detail"]


def test_usage_in_the_future(admin: Admin) -> None:
    record = Record(ADMITTED, (now_s() + 40 * DAY_S) * 10**9, 1, 1, 0, 0, 0, 0, 1, 200, 0, 1, 0, 0, 0, 0, b"")
    with admin.control.database.write() as session:
        Rollups().add(session, [record])
    finding = found(admin, "clock")
    assert (finding["state"], "in the future" in finding["detail"]) == ("failed", True)


def test_a_cycle_that_is_over(admin: Admin) -> None:
    with admin.control.database.write() as session:
        session.add(Cycle(tenant_id=1, period="2020-01", starts_at=1_577_836_800, ends_at=1_580_515_200))
        session.add(Cycle(tenant_id=1, period="2020-02", starts_at=1, ends_at=2, closed_at=3))
        session.add(Cycle(tenant_id=1, period="now", starts_at=1, ends_at=now_s() - 60))
    finding = found(admin, "cycles")
    assert finding["detail"] == "over, and without an invoice: 2020-01 of default"
    assert finding["mend"] == "gatectl billing close --period 2020-01 -t default"


@pytest.mark.parametrize(("after_s", "state"), [(0, "warning"), (3600, "warning"), (10800, "ok"), (-1, "ok")])
def test_a_cycle_is_over_when_the_settings_say_so(
    admin: Admin, monkeypatch: pytest.MonkeyPatch, after_s: int, state: str
) -> None:
    with admin.control.database.write() as session:
        session.add(Cycle(tenant_id=1, period="2020-01", starts_at=1, ends_at=now_s() - 3 * 3600))
    monkeypatch.setitem(admin.control.settings.__dict__, "invoice_after_s", after_s)
    assert found(admin, "cycles")["state"] == state


def test_an_invoice_that_was_altered(admin: Admin) -> None:
    admin.post("/v1/billing/reset")
    assert found(admin, "invoices")["detail"] == "what the ledger makes of them; looked at the last 1"
    with admin.control.database.write() as session:
        connection = session.connection()
        connection.exec_driver_sql("DROP TRIGGER invoice_no_update")
        connection.exec_driver_sql("UPDATE invoice SET total = total, body = replace(body, 'default', 'defcult')")
    finding = found(admin, "invoices")
    assert (finding["state"], "INV-000001" in finding["detail"]) == ("failed", True)


def pending(event: AlertEvent, _: Alert) -> None:
    event.attempts, event.error = 3, "it answered 500"


def given_up(event: AlertEvent, _: Alert) -> None:
    event.attempts, event.next_at = 11, None


def delivered(event: AlertEvent, _: Alert) -> None:
    event.attempts, event.next_at, event.delivered_at = 2, None, 5


def tried_out(event: AlertEvent, _: Alert) -> None:
    event.attempts, event.next_at = 1, None


def disabled(_: AlertEvent, alert: Alert) -> None:
    alert.disabled_at = 5


def removed(_: AlertEvent, alert: Alert) -> None:
    alert.removed_at = 5


@pytest.mark.parametrize(
    ("become", "age_s", "state", "says"),
    [
        (pending, 600, "warning", "the last attempt failed, and another will follow: alr_1"),
        (pending, 7200, "warning", "events wait: alr_1"),
        (given_up, DAY_S, "failed", "events were given up: alr_1"),
        (given_up, 8 * DAY_S, "ok", "1 alert,"),
        (delivered, DAY_S, "ok", "1 alert,"),
        (tried_out, DAY_S, "ok", "1 alert,"),
        (disabled, 60, "failed", "disabled, since the receiver answered 410: alr_1"),
        (removed, DAY_S, "ok", "0 alerts"),
    ],
)
def test_alerts(admin: Admin, become: Callable[[AlertEvent, Alert], None], age_s: int, state: str, says: str) -> None:
    with admin.control.database.write() as session:
        alert = Alert(public_id="alr_1", tenant_id=1, kind="refusals", threshold=1, url="http://a", secret="whsec_",
                      created_at=0)  # fmt: skip
        session.add(alert)
        session.flush()
        (wanted,) = outbox.wanted(session.connection(), "refusals")
        outbox.put(session.connection(), wanted, "refusals", "refusals:1", now_s() - age_s)
        become(session.get_one(AlertEvent, 1), alert)
    finding = found(admin, "alerts")
    assert finding["state"] == state
    assert finding["detail"].startswith(says)


def test_targets(admin: Admin) -> None:
    admin.post("/v1/services", slug="orders", targets=["http://a", "http://b"])
    said = ("http://a", "unhealthy", 1_795_262_400, "connection refused", 1_795_262_400)
    admin.plane.target_views = [TargetView("probe", *said), TargetView("probe", "http://b", *said[1:])]
    finding = found(admin, "targets")
    assert finding["detail"].startswith(
        "target http://a of service orders is unhealthy: connection refused, and 1 more"
    )
    assert "gatectl service health orders" in finding["mend"]


@pytest.mark.parametrize(("days", "state"), [(40, "ok"), (10, "warning"), (-1, "warning")])
def test_certificates_that_targets_are_shown(admin: Admin, tmp_path: Path, days: int, state: str) -> None:
    issued = trustme.CA().issue_cert("gateway", not_after=datetime.now(UTC) + timedelta(days=days))
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    file = str(tmp_path / "client.pem")
    admin.post("/v1/services", slug="orders", targets=["https://a"], tls_cert_file=file, tls_key_file=file)
    finding = found(admin, "certificates")
    assert finding["state"] == state
    if state != "ok":
        assert f"the certificate {file} of service orders expire" in finding["detail"]


def test_the_socket(admin: Admin) -> None:
    admin.control.settings.admin_socket.chmod(0o666)
    assert "any user may try it" in found(admin, "socket")["detail"]
    admin.control.settings.admin_socket.unlink()
    assert found(admin, "socket")["state"] == "failed"


def test_the_schema(admin: Admin) -> None:
    with admin.control.database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert "has schema 9999" in found(admin, "schema")["detail"]

"""Checks of `doctor` beyond journal and books: targets, certificates, the schema, and who can reach the socket."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import select

from gatewayd.control.admin.findings import Patient, Verdict, some
from gatewayd.control.admin.health import certificate_problems, certificates_of, ill_targets
from gatewayd.control.certificates import expires_at
from gatewayd.control.database import HEAD
from gatewayd.control.tables import Service, Tenant
from gatewayd.policy.amounts import format_time

_SOON_S = 14 * 86400  # what is renewed in time is renewed a month before
_service, _tenant = Service.__table__, Tenant.__table__  # type: ignore[attr-defined]


def targets_are_well(patient: Patient) -> Verdict:
    live = (_service.c.removed_at.is_(None), _service.c.id.in_(patient.views))
    query = select(_service.c.id, _service.c.slug, _tenant.c.slug).join_from(_service, _tenant).where(*live)
    services = {number: (slug, tenant) for number, slug, tenant in patient.connection.execute(query)}
    if ill := ill_targets(patient.views, services):
        more = f", and {len(ill) - 1} more" if len(ill) > 1 else ""
        return Verdict("warning", ill[0].problem + more, f"{ill[0].command} tells what its requests and probes met")
    return Verdict("ok", "nobody has anything to say against a target")


def certificates_last(patient: Patient) -> Verdict:
    """The gateway's own, and those that it shows to targets."""
    settings = patient.control.settings
    own = certificates_of(settings)
    if wrong := certificate_problems(own, patient.now_s):
        expired = any("expires in" not in trouble.problem for trouble in wrong)
        mend = f"renew it, then reload: systemctl reload gatewayd; to look: {wrong[0].command}"
        return Verdict("failed" if expired else "warning", some(trouble.problem for trouble in wrong), mend)
    shown = list(_shown_to_targets(patient))
    if late := [told for told in shown if told[0]]:
        mend = f"renew the file; or name another: gatectl service set {late[0][1]} --tls-cert FILE --tls-key FILE"
        return Verdict("warning", some(told[0] for told in late), mend)
    count = len(own) + len(shown)
    return Verdict("ok", f"{count} certificate{'s' * (count != 1)}, none expires within two weeks")


def _shown_to_targets(patient: Patient) -> Iterator[tuple[str, str]]:
    """Of each client certificate what is wrong with it, and which service shows it."""
    live = (_service.c.removed_at.is_(None), _service.c.tls_cert_file.is_not(None))
    query = select(_service.c.tls_cert_file, _service.c.slug).where(*live).order_by(_service.c.slug)
    for file, slug in patient.connection.execute(query):
        what = f"the certificate {file} of service {slug}"
        try:
            ends_at = expires_at(Path(file))
        except (OSError, ValueError) as error:
            yield f"{what} cannot be read: {error}", slug
            continue
        verb = "expired" if ends_at <= patient.now_s else "expires"
        yield (f"{what} {verb} at {format_time(ends_at)}" if ends_at < patient.now_s + _SOON_S else ""), slug


def schema_is_ours(patient: Patient) -> Verdict:
    found = patient.connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if found == HEAD:
        return Verdict("ok", f"schema {HEAD}")
    mend = "another gatewayd has changed it; restart this one, or install that version"
    return Verdict("failed", f"the database has schema {found}, and this gatewayd knows {HEAD}", mend)


def socket_is_guarded(patient: Patient) -> Verdict:
    path = patient.control.settings.admin_socket
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Verdict("failed", f"{path} is gone, though connections to it last", "systemctl restart gatewayd")
    if mode & 0o007:
        return Verdict("warning", f"{path} has mode {mode:o}: any user may try it", f"chmod 660 {path}")
    return Verdict("ok", f"{path} has mode {mode:o}")

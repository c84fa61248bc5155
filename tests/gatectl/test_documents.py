"""Invoices as documents: the very bytes, a page that fetches nothing, a PDF that is the same each time."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from decimal import Decimal
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gatectl.billing import fonts
from gatectl.billing.html import html
from gatectl.billing.paper import Paper, local_time, paper
from gatectl.billing.pdf import pdf
from tests.gatectl.billing_answers import NUMBER, PRICE, body, canonical, line
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import FakeDaemon

EXPORT = ("billing", "invoice", "export", NUMBER)
NAMES = "Ωmega Жук שלום شركة कंपनी บริษัท"


def written(**more: object) -> Paper:
    return paper(body(**more), "ab" * 32)


def test_json_is_byte_for_byte_what_was_hashed(gatectl: Gatectl, daemon: FakeDaemon, folder: Path) -> None:
    out = folder / "invoice.json"
    ended = gatectl(*EXPORT, "--out", str(out))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert out.read_bytes() == canonical(body())
    assert gatectl(*EXPORT, "--format", "json").out.encode() == canonical(body())
    assert [path.name for path in folder.iterdir() if path.name != "admin.sock"] == ["invoice.json"]


@pytest.mark.usefixtures("daemon")
def test_csv_adds_up(gatectl: Gatectl) -> None:
    rows = list(csv.DictReader(io.StringIO(gatectl(*EXPORT, "--format", "csv").out)))
    assert sum(Decimal(row["amount"]) for row in rows) == Decimal(body()["subtotal"])
    assert [row["tier"] for row in rows] == ["", "1", "2", "", "", "", ""]


@pytest.mark.parametrize("form", ["json", "csv", "html", "pdf"])
def test_bytes_that_have_another_hash_are_no_document(gatectl: Gatectl, daemon: FakeDaemon, form: str) -> None:
    daemon.state["ledger"]["sha256"] = "0" * 64
    ended = gatectl(*EXPORT, "--format", form)
    assert (ended.code, ended.out) == (1, "")
    assert "invoice INV-000001 is not what its SHA-256 is of; see 'gatectl billing verify'" in ended.err


@pytest.mark.usefixtures("daemon")
def test_a_file_that_cannot_be_written_stays_as_it_is(gatectl: Gatectl, folder: Path) -> None:
    (folder / "taken.html").mkdir()
    ended = gatectl(*EXPORT, "--out", str(folder / "taken.html"))
    assert ended.code == 1
    assert ended.err.startswith(f"gatectl: cannot write {folder}/taken.html: ")
    for place in ("none/a.html", "file/a.html"):
        (folder / "file").touch()
        assert gatectl(*EXPORT, "--out", str(folder / place)).err.startswith(
            f"gatectl: cannot write {folder}/{place}: "
        )
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("daemon")
def test_a_file_is_replaced_and_a_link_or_a_device_is_written_to(gatectl: Gatectl, folder: Path) -> None:
    (folder / "stdout").symlink_to("/proc/self/fd/1")  # as /dev/stdout, which a test that fails as root takes away
    assert gatectl(*EXPORT, "--out", str(folder / "stdout")).out.encode() == canonical(body())
    assert (folder / "stdout").is_symlink()
    (folder / "old.json").write_bytes(b"x" * 100_000)
    (folder / "link").symlink_to(folder / "old.json")
    assert gatectl(*EXPORT, "--out", str(folder / "link")).code == 0
    assert (folder / "link").is_symlink()
    assert (folder / "old.json").read_bytes() == canonical(body())
    (folder / "old.json").chmod(0o600)
    assert gatectl(*EXPORT, "--out", str(folder / "old.json")).code == 0
    assert (folder / "old.json").read_bytes() == canonical(body())


@pytest.mark.usefixtures("daemon")
def test_a_pdf_is_not_for_a_terminal_and_its_library_may_be_missing(gatectl: Gatectl, folder: Path) -> None:
    ended = gatectl.at_terminal(*EXPORT, "--format", "pdf")
    assert (ended.code, "add --out FILE" in ended.plain) == (2, True)
    (folder / "fpdf.py").write_text("raise ModuleNotFoundError(\"No module named 'fpdf'\", name='fpdf')\n")
    missing = gatectl(*EXPORT, "--format", "pdf", PYTHONPATH=str(folder))
    assert (missing.code, missing.out) == (1, "")
    assert missing.err == (
        "gatectl: a PDF needs fpdf, which is not installed; pip install 'gatewayd[pdf]', or take --format html\n"
    )


class Page(HTMLParser):
    """What a browser would be asked to do."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html_runs_nothing_and_fetches_nothing() -> None:
    evil = '"><script>alert(1)</script><img src="http://example.com/x">\'&lt;'
    tenant = {"slug": "default", "name": evil, "contact": evil}
    lines = [line(evil, "gw_ab12cd34", evil, "request", 1, "1", "1", plan=evil)]
    credited = [{"at": "2026-10-20T10:00:00Z", "kind": "credit", "amount": "-5", "reason": evil, "author": evil}]
    text = html(written(tenant=tenant, lines=lines, credits=credited))
    page = Page(text)
    assert {tag for tag, _ in page.tags} == {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "dl", "dt", "dd", "div", "table", "thead",
        "tbody", "tfoot", "tr", "th", "td",
    }  # fmt: skip
    assert not [name for _, attributes in page.tags for name in attributes if name in ("src", "href", "style")]
    assert not re.search(r"url\(|@import|https?:", "".join(re.findall("<style>.*?</style>", text, re.DOTALL)))
    assert "".join(page.text).count(evil) == 7  # told as it is, and nothing of it lost


def test_every_form_says_the_same() -> None:
    said = "".join(Page(html(written())).text)
    for text in (NUMBER, "Łukasz & Söhne (default)", "2026-10-01 00:00 up to 2026-11-01 00:00, Europe/Berlin",
                 "billable: 2xx, 3xx, 4xx", "1,572,864", "outage of 3 October", "36.686 EUR", "ab" * 32):  # fmt: skip
        assert text in said


def test_a_pdf_is_the_same_each_time_and_carries_its_letters() -> None:
    tenant = {"slug": "default", "name": NAMES, "contact": ""}
    document, missing = pdf(written(tenant=tenant), "2026-11-01T00:00:07Z")
    assert document == pdf(written(tenant=tenant), "2026-11-01T00:00:07Z")[0]
    assert missing == set()
    assert document.startswith(b"%PDF-")
    assert b"FiraGO" in document
    assert b"/CreationDate (D:20261101000007Z" in document
    assert document != pdf(written(tenant=tenant), "2026-11-01T00:00:08Z")[0]


def test_a_long_invoice_has_pages() -> None:
    lines = [line("orders", f"gw_{number:08}", "key", "request", number, "0.001", "1") for number in range(150)]
    document, _ = pdf(written(lines=lines), "2026-11-01T00:00:07Z")
    assert len(re.findall(rb"/Type /Page\b", document)) == 5


def test_what_no_font_has_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path])
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    _, missing = pdf(written(tenant={"slug": "a", "name": "株 Ltd", "contact": ""}), "2026-11-01T00:00:07Z")
    assert missing == {"株"}


def test_a_font_of_the_system_has_what_ours_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regular, _ = fonts.own(tmp_path)
    monkeypatch.setattr(fonts, "_folders", lambda: [tmp_path, tmp_path / "none"])
    chosen, missing = fonts.fallbacks({ord("ж"), ord("株")}, [])
    assert [face.path.parent for face in chosen] == [tmp_path]
    assert missing == {ord("株")}
    assert fonts.fallbacks({ord("ж")}, [regular]) == ([], set())


def test_only_a_pdf_costs_its_library() -> None:
    script = "import sys, gatectl.commands.billing; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"fpdf", "fontTools", "PIL", "rich"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("moment", "zone", "said"),
    [
        ("2026-10-31T23:00:00Z", "Europe/Rome", "2026-11-01 00:00"),
        ("2026-09-30T22:00:00Z", "Europe/Rome", "2026-10-01 00:00"),  # summer time
        ("2026-10-31T23:00:00Z", "Mars/Olympus", "2026-10-31 23:00 UTC"),
    ],
)
def test_times_are_of_the_tenants_zone(moment: str, zone: str, said: str) -> None:
    assert local_time(moment, zone) == said


def test_prices_are_named_by_their_plans_and_never_by_all_of_them() -> None:
    lines = [line("a", f"gw_{n}", "", "request", 1, "1", "1", plan=f"p{n}" if n else None, terms=7) for n in range(9)]
    terms = [{"id": 7, **PRICE}]
    assert [label for label, _ in written(lines=lines, terms=terms).terms] == ["plan p1, plan p2 and 7 more"]
    assert [label for label, _ in written(lines=lines[:2], terms=terms).terms] == ["plan p1, without a plan"]


def test_the_hash_on_paper_is_that_of_the_file() -> None:
    told = paper(body(), sha256(canonical(body())).hexdigest())
    assert told.foot == [("sha256", sha256(canonical(body())).hexdigest())]


@pytest.mark.parametrize(("amount", "label"), [("-3.5", "credited"), ("13.3", "adjusted"), ("0", "credited")])
def test_what_is_put_onto_a_bill_is_no_credit(amount: str, label: str) -> None:
    assert dict(written(credited=amount).sums)[label] == amount

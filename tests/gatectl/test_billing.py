"""gatectl billing: what it asks, what it refuses to do unasked, and what it says of differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from gatectl.app import run
from tests.gatectl.billing_answers import NUMBER, body, canonical, credit, line
from tests.gatectl.conftest import Ended, Gatectl
from tests.gatectl.fake_daemon import FakeDaemon

Run = Callable[..., Ended]


@pytest.fixture
def called(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """gatectl within this process, in a pipe: a process of its own for each of so many would be 10 s of the suite."""
    monkeypatch.setenv("GATECTL_SOCKET", str(daemon.path))

    def call(*words: str) -> Ended:
        code = run(words)
        return Ended(code, *capsys.readouterr())

    return call


def posts(daemon: FakeDaemon) -> list[tuple[Any, ...]]:
    return [asked[1:] for asked in daemon.requests if asked[0] == "POST"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("billing show --period 2026-10.2", ("GET", "/v1/billing", {"period": "2026-10.2"}, None)),
        ("billing preview -t acme", ("GET", "/v1/billing/preview", {"tenant": "acme"}, None)),
        ("billing ledger --period 2026-10", ("GET", "/v1/ledger", {"period": "2026-10", "limit": "100"}, None)),
        ("billing close 2026-11 --yes", ("POST", "/v1/billing/close", {}, {"period": "2026-11"})),
        ("billing close --dry-run", ("POST", "/v1/billing/close", {"dry_run": "true"}, {})),
        ("billing reset -t acme --yes", ("POST", "/v1/billing/reset", {"tenant": "acme"}, {})),
        ("bills invoices ls", ("GET", "/v1/invoices", {"limit": "100"}, None)),
        ("billing verify -t acme", ("GET", "/v1/billing/verify", {"tenant": "acme"}, None)),
        (
            "billing credits add 5 --reason x -t acme",
            ("POST", "/v1/credits", {"tenant": "acme"}, {"kind": "credit", "amount": "5", "reason": "x"}),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_requests(called: Run, daemon: FakeDaemon, words: str, expected: tuple[Any, ...]) -> None:
    ended = called(*words.split())
    assert (ended.code, ended.err) == (0, "")
    assert daemon.requests[-1] == expected


@pytest.mark.parametrize(
    "words",
    [
        ["billing", "adjust", "-5", "--reason", "x"],
        ["billing", "adjust", "--reason", "x", "-5"],
        ["billing", "adjust", "--reason", "x", "--", "-5"],
        ["billing", "adjust", "-5", "--reason=x"],
        ["-q", "billing", "adjust", "-5", "--reason", "x", "-o", "json"],
    ],
)
def test_a_negative_amount_is_no_option(called: Run, daemon: FakeDaemon, words: list[str]) -> None:
    assert called(*words).code == 0
    assert daemon.requests[-1][3] == {"kind": "adjustment", "amount": "-5", "reason": "x"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("billing adjust -5 --raeson x", "no such option: --raeson; did you mean '--reason'?"),
        ("billing adjust -5", "missing option '--reason'"),
        ("billing adjust 5 6 --reason x", "unexpected extra argument"),
        ("billing invioce list", "billing has no verb 'invioce'; did you mean 'invoice'?"),
        ("billing invoice get", "invoice has no verb 'get'; did you mean 'show'?"),
        ("billing invoice", "gatectl billing invoice needs a verb: list, show, export; see"),
        ("billing credit create 5", "credit has no verb 'create'; did you mean 'add'?"),
        ("billing show --period 2026-13", "--period: '2026-13' is not a month"),
        ("billing close 2026-9", "PERIOD: '2026-9' is not a month"),
        ("billing invoice export INV-000001 -o csv", "-o is for tables; a document has a --format; take one of pdf"),
    ],
)
def test_what_cannot_be_followed(called: Run, words: str, said: str) -> None:
    ended = called(*words.split())
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("billing invoice show XYZ", 3, "no invoice 'XYZ'; 'gatectl billing invoice list' shows what there is"),
        ("billing replay XYZ -t acme", 3, "'gatectl billing invoice list -t acme' shows what there is"),
        ("billing invoice show INV-000009", 3, "did you mean 'INV-000001'?"),
        ("billing close 2026-10 --yes", 4, "is closed already; see 'gatectl billing cycles'"),
        ("billing credit add -5 --reason x", 4, "AMOUNT: a credit is more than 0"),
    ],
)
def test_what_the_gateway_refuses(called: Run, words: str, code: int, said: str) -> None:
    ended = called(*words.split())
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


@pytest.mark.parametrize("verb", ["close", "reset"])
def test_a_cycle_ends_only_when_the_tenants_name_was_typed(gatectl: Gatectl, daemon: FakeDaemon, verb: str) -> None:
    piped = gatectl("billing", verb)
    assert piped.code == 2
    assert "nobody to ask" in piped.err
    refused = gatectl.at_terminal("billing", verb, typed="y\n")
    assert refused.code == 2
    assert "of tenant default with an invoice of 36.686 EUR? Type 'default' to go on:" in refused.plain
    assert all(query == {"dry_run": "true"} for _, query, _ in posts(daemon))
    assert list(daemon.state["ledger"]["invoices"]) == [NUMBER]
    agreed = gatectl.at_terminal("billing", verb, typed="default\n")
    assert agreed.code == 0
    assert "Invoice INV-000002" in agreed.plain
    # What is closed is what was shown, though another cycle may be the oldest by now.
    assert posts(daemon)[-1] == (f"/v1/billing/{verb}", {}, {"period": "2026-10.2"} if verb == "close" else {})


def test_verify_lists_what_differs_and_exits_7(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["ledger"]["differences"] = [
        {"invoice": NUMBER, "what": "body", "line": "lines[2].amount", "expected": "1.171", "found": "9.171",
         "detail": "the ledger's entries and their prices make another body"},
        {"invoice": None, "what": "usage", "line": "2026-09", "expected": 0, "found": 12, "detail": "no invoice"},
    ]  # fmt: skip
    piped = gatectl("billing", "verify", "--no-header")
    assert piped.code == 7
    assert [row.split("\t")[:5] for row in piped.out.splitlines()] == [
        [NUMBER, "body", "lines[2].amount", "1.171", "9.171"],
        ["-", "usage", "2026-09", "0", "12"],
    ]
    assert json.loads(gatectl("billing", "verify", "-o", "json").out)["ok"] is False
    shown = gatectl.at_terminal("billing", "verify", columns=200)
    assert shown.code == 7
    assert "Invoices computed again: 2; differences: 2" in shown.plain


def test_replay_of_other_bytes_exits_7_and_writes_them(gatectl: Gatectl, daemon: FakeDaemon, folder: Path) -> None:
    again = body(total="1")
    daemon.state["ledger"]["again"] = again
    ended = gatectl("billing", "replay", NUMBER, "--out", str(folder / "again.json"), "--columns", "same")
    assert (ended.code, ended.out) == (7, "same\tno\n")
    assert (folder / "again.json").read_bytes() == canonical(again)
    shown = gatectl.at_terminal("billing", "replay", NUMBER)
    assert shown.code == 7
    assert "computed again: other bytes; see 'gatectl billing verify'" in shown.plain
    assert sha256(canonical(again)).hexdigest() in shown.plain


def test_a_ledger_without_the_closing_entry_has_nothing_to_write(called: Run, daemon: FakeDaemon, folder: Path) -> None:
    daemon.state["ledger"]["again"] = None
    ended = called("billing", "replay", NUMBER, "--out", str(folder / "again.json"))
    assert ended.code == 1
    assert "the ledger has no entry that closes the cycle of invoice INV-000001" in ended.err
    assert not (folder / "again.json").exists()


def test_lines_for_programs_are_as_the_invoice_has_them(called: Run, daemon: FakeDaemon) -> None:
    rows = called("billing", "invoice", "show", NUMBER, "--columns", "kind,tier,amount", "--no-header").out
    assert rows.splitlines()[1:3] == ["tier\t1\t9", "tier\t2\t1.171"]
    assert json.loads(called("billing", "invoice", "show", NUMBER, "-o", "json").out)["body"] == body()
    assert called("billing", "invoice", "show", NUMBER, "-q").out == f"{NUMBER}\n"
    made = [json.loads(row) for row in called("billing", "invoice", "show", NUMBER, "-o", "ndjson").out.splitlines()]
    assert made == body()["lines"]


def test_an_invoice_of_nothing(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    nothing = body(lines=[], credits=[], terms=[], subtotal="0", credited="0", total="0")
    daemon.state["ledger"]["invoices"][NUMBER] = nothing
    shown = gatectl.at_terminal("billing", "invoice", "show", NUMBER).plain
    assert "Nothing was used.\n\ntotal  0 EUR\n" in shown


def test_a_name_cannot_move_the_cursor(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    evil = "\x1b[2Jwiped"
    tenant = {"slug": "default", "name": evil, "contact": ""}
    lines = [line("orders", "gw_ab12cd34", evil, "request", 1, "1", "1")]
    daemon.state["ledger"]["invoices"][NUMBER] = body(tenant=tenant, lines=lines)
    shown = gatectl.at_terminal("billing", "invoice", "show", NUMBER).out
    assert "\x1b[2J" not in shown
    assert shown.count("\\x1b[2Jwiped") == 2
    daemon.state["ledger"]["credits"] = [{"id": 1, **credit("credit", "-5", evil)}]
    shown = gatectl.at_terminal("billing", "show").out
    assert "\x1b[2J" not in shown
    assert "credit -5, \\x1b[2Jwiped (root)" in shown


def test_what_is_carried_is_said(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["ledger"]["invoices"][NUMBER] = body(total="0", carried_forward="9.814", credited="-50")
    shown = gatectl.at_terminal("billing", "invoice", "show", NUMBER).plain
    assert [row.split() for row in shown.splitlines() if "9.814" in row] == [["carried", "over", "9.814"]]

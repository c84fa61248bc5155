"""`make demo`: two APIs, a gateway, three customers, some thousand requests; every gatectl command and what it prints.

What it shows it also checks: the gateway's figures against those of the callers and of the APIs. Ends with exit code 0,
or 1 and one line; leaves no process and no file behind, on Ctrl-C neither.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
from decimal import Decimal
from pathlib import Path

import httpx

from gatectl.errors import DIFFERENT, REFUSED
from tests import traffic
from tests.daemons import DaemonError, Gateway, ends_on_signals, example, gateway
from tests.receiver import Receiver, receiver
from tests.terminal import Terminal
from tests.traffic import Caller

_SECRET = re.compile(r"\bwhsec_[0-9A-Za-z+/=]+")
_KEY = re.compile(r"\bgw_[a-z0-9]{8}_[0-9A-Za-z]{28}\b")
_STARTER_PRICE = Decimal("0.001")
_PRO_BASE, _PRO_INCLUDED, _PRO_TIER, _PRO_PRICES = Decimal(9), 500, 1000, (Decimal("0.0004"), Decimal("0.0002"))
_CREDIT = Decimal("1.5")
_REFUSALS = 50  # of the 200 of hobby nearly all are, in one minute or in two
_INVOICE = "INV-000001"
_PLANS = {"hobby": "starter", "shop": "pro", "partner": "pro"}
_STARTER_BURST = 20  # and 60 a minute
_REVOKE_AFTER = 300


class WrongError(Exception):
    """What was shown is not what happened. The message is one line."""


class Demo:
    """The play: each method is a scene, and `perform` their order."""

    def __init__(
        self, folder: Path, gateway: Gateway, apis: dict[str, str], hooks: Receiver, terminal: Terminal
    ) -> None:
        self._folder = folder
        self._gateway = gateway
        self._hooks = hooks
        self._apis = apis
        self._terminal = terminal
        self._callers: dict[str, Caller] = {}
        self._secret = ""
        self._seconds = 0.0

    def perform(self) -> None:
        self._register()
        self._mint()
        self._try()
        self._serve()
        self._read()
        self._bill_them()
        self._change_by_file()
        self._check()

    def _gatectl(self, *arguments: str, code: int = 0) -> str:
        gatectl = self._gateway.gatectl
        return self._terminal.run(["gatectl", *arguments], [*gatectl.argv, *arguments], gatectl.environment, (code,))

    def _register(self) -> None:
        self._terminal.heading("1. Two APIs are put behind the gateway, and two plans are made")
        self._gatectl("status")
        for name, url in self._apis.items():
            self._gatectl("service", "add", name, url)
        self._gatectl("service", "list")
        self._gatectl(
            "plan", "add", "starter", "--rate", "60/min", "--burst", "20", "--quota", "10000/month",
            "--price", str(_STARTER_PRICE),
        )  # fmt: skip
        first, rest = _PRO_PRICES
        self._gatectl(
            "plan", "add", "pro", "--rate", "2000/s", "--quota", "1M/month", "--base-fee", str(_PRO_BASE),
            "--included", str(_PRO_INCLUDED), "--tier", f"{_PRO_TIER}={first}", "--tier", f"rest={rest}",
        )  # fmt: skip
        self._gatectl("plan", "list")
        self._gatectl(
            "route", "add", "--path", "/v1/orders/{id}", "--method", "GET", "--to", "orders", "--name", "read"
        )
        self._gatectl("route", "list")
        self._gatectl("route", "test", "GET", "/v1/orders/42")
        added = self._gatectl("alert", "add", "--refusals", f"{_REFUSALS}/min", "--url", self._hooks.url)
        secret = _SECRET.search(added)
        if secret is None:
            raise WrongError("alert add shows no secret")
        self._secret = secret[0]

    def _mint(self) -> None:
        self._terminal.heading("2. Three customers get keys; a key is shown this once")
        self._mint_one("hobby", ("orders",), 200, "--service", "orders")
        self._mint_one("shop", ("orders", "products"), 2000)
        self._mint_one("partner", ("products",), None, "--service", "products")
        self._gatectl("key", "list")

    def _mint_one(self, name: str, services: tuple[str, ...], amount: int | None, *scope: str) -> None:
        shown = self._gatectl("key", "create", *scope, "--plan", _PLANS[name], "--name", name)
        key = _KEY.search(shown)
        if key is None:
            raise WrongError("key create shows no key")
        self._callers[name] = Caller(name, key[0], services, amount)

    def _try(self) -> None:
        self._terminal.heading("3. What a caller sees: with a key, and without")
        shop = self._callers["shop"]
        answer = self._get("/orders/42", shop.key)
        shop.answers[answer.status_code] += 1
        refused = self._get("/orders/42", None)
        if (answer.status_code, refused.status_code) != (200, 401):
            raise WrongError(
                f"expected 200 with a key and 401 without, got {answer.status_code}, {refused.status_code}"
            )
        self._gatectl("explain", refused.headers["x-request-id"], code=REFUSED)
        self._gatectl("explain", "--key", "hobby", "GET", "/products/1", code=REFUSED)

    def _get(self, path: str, key: str | None) -> httpx.Response:
        self._terminal.line(f"\nGET {self._gateway.url}{path}" + (f"\nX-API-Key: {key[:11]}_..." if key else ""))
        answer = httpx.get(self._gateway.url + path, headers={"X-API-Key": key} if key else {}, trust_env=False)
        shown = [f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}"]
        shown += [f"{name}: {value}" for name, value in answer.headers.items() if name not in ("date", "server")]
        for line in (*shown, "", answer.text.strip()):
            self._terminal.note(f"    {line}".rstrip())
        return answer

    def _serve(self) -> None:
        self._terminal.heading("4. All three send requests at once; in the middle of it the partner's key is revoked")
        callers, partner = list(self._callers.values()), self._callers["partner"]
        work = traffic.send(self._gateway.url, callers, self._revoke, partner, _REVOKE_AFTER)
        try:
            self._seconds = asyncio.run(work)
        except* (httpx.HTTPError, TimeoutError) as errors:
            raise WrongError(f"a request was not answered: {errors.exceptions[0]!r}") from None
        sent = sum(caller.sent for caller in callers)
        self._terminal.line(f"\n{sent:,} requests in {self._seconds:.1f} s, as the callers saw them:\n")
        statuses = sorted({status for caller in callers for status in caller.answers})
        self._terminal.line(f"  {'caller':<10}{'sent':>7}" + "".join(f"{status:>7}" for status in statuses))
        for caller in callers:
            counts = "".join(f"{caller.answers[status] or '-':>7}" for status in statuses)
            self._terminal.line(f"  {caller.name:<10}{caller.sent:>7}{counts}")

    def _revoke(self) -> None:
        self._gatectl("key", "revoke", self._callers["partner"].key[:11], "--yes")

    def _read(self) -> None:
        self._terminal.heading("5. Usage, who was told of it, and who changed what")
        self._shows("usage", "show", "--by", "key", "--plot")
        self._gatectl("usage", "top", "--by", "key", "--of", "refused")
        self._shows("billing", "show")
        self._gatectl("billing", "keys")
        self._tell_of_hook()
        self._gatectl("key", "list")
        self._gatectl("logs", "--refused", "--limit", "5")
        self._gatectl("audit", "list")
        self._gatectl("audit", "verify")
        self._gatectl("status")

    def _tell_of_hook(self) -> None:
        try:
            delivery = self._hooks.wait_for(1)[0]
        except AssertionError:
            raise WrongError("no webhook tells of the requests that were refused") from None
        event = delivery.verified(self._secret)
        if event["type"] != "refusals.spike" or event["data"]["refused"] < _REFUSALS:
            raise WrongError(f"the webhook tells of {event}")
        self._terminal.line(f"\nPOST {self._hooks.url}, its signature verified:")
        self._terminal.note(f"    {json.dumps(event)}")

    def _bill_them(self) -> None:
        self._terminal.heading("6. The bill becomes an invoice, with a credit, and the next billing cycle begins")
        self._gatectl("billing", "credit", "add", str(_CREDIT), "--reason", "sorry for /slow")
        self._gatectl("billing", "preview")
        self._gatectl("billing", "reset", "--yes", "-q")
        self._gatectl("billing", "cycles")
        self._gatectl("billing", "invoice", "show", _INVOICE)
        self._gatectl("billing", "replay", _INVOICE)
        self._gatectl("billing", "verify")
        self._gatectl("usage", "verify")
        self._gatectl("doctor")

    def _change_by_file(self) -> None:
        self._terminal.heading("7. All of it as one file; a change that is looked at, made and taken back; a backup")
        file, backup = str(self._folder / "gateway.yaml"), self._folder / "gatewayd.tar.gz"
        self._gatectl("config", "dump", "-f", file)
        written = Path(file).read_text()
        changed = written.replace("quota: 10000/month", "quota: 20000/month")
        if changed == written or any(caller.key in written for caller in self._callers.values()):
            raise WrongError("config dump shows no quota of starter, or a secret")
        Path(file).write_text(changed)
        self._gatectl("config", "diff", "-f", file, code=DIFFERENT)
        self._gatectl("config", "apply", "-f", file, "--yes", "--message", "twice as much")
        self._gatectl("config", "rollback", "1", "--yes")
        self._gatectl("config", "history")
        if self._gatectl_again("config", "dump") != written.partition("\n")[2]:
            raise WrongError("config rollback 1 does not bring back what was")
        self._gatectl("backup", "--out", str(backup), "-q")
        self._gatectl("restore", str(backup), "--state-dir", str(self._folder / "restored"))

    def _gatectl_again(self, *arguments: str) -> str:
        """Without showing it; and without the comment at its head."""
        return str(self._gateway.gatectl.do(*arguments)).partition("\n")[2]

    def _shows(self, *arguments: str) -> None:
        """Show it; every whole number that the callers know of must be on the screen."""
        shown = re.sub(r"(?<=\d)[,\u202f ](?=\d{3}\b)", "", self._gatectl(*arguments))
        wanted = self._admitted() if arguments[0] == "usage" else self._bill()
        if not re.search(
            rf"(?<![\d.]){re.escape(f'{wanted:f}' if isinstance(wanted, Decimal) else str(wanted))}(?!\d)", shown
        ):
            raise WrongError(f"gatectl {' '.join(arguments)} does not show {wanted}")

    def _admitted(self) -> int:
        return sum(caller.admitted for caller in self._callers.values())

    def _bill(self) -> Decimal:
        costs = (_cost(_PLANS[name], caller.billable) for name, caller in self._callers.items())
        return sum(costs, Decimal()).normalize()

    def _check(self) -> None:
        self._terminal.heading("8. Is all of that true?")
        terminal, gatectl = self._terminal, self._gateway.gatectl
        served = {
            name: httpx.get(f"{url}/_count", trust_env=False).json()["requests"] for name, url in self._apis.items()
        }
        usage = gatectl.json("usage", "show")
        counted = {item["service"]: item["requests"] for item in usage["items"] if item["requests"]}
        _equal("usage show counts by service", counted, "the APIs served", served)
        _equal("usage show counts", usage["total"]["requests"], "the callers were let through", self._admitted())
        terminal.done(f"usage show counts {usage['total']['requests']:,} requests: as many as the two APIs served")
        by_key = {item["key"]: item["requests"] for item in gatectl.json("usage", "show", "--by", "key")["items"]}
        for caller in self._callers.values():
            _equal(
                f"usage show counts for {caller.name}", by_key[caller.key[:11]], "it was let through", caller.admitted
            )
        terminal.done("and as many of each key as its holder was let through")
        invoice = gatectl.json("billing", "invoice", "show", _INVOICE)
        owed = Decimal(invoice["body"]["subtotal"])
        _equal("the invoice says", owed, "base fees and the answers 2xx and 3xx cost", self._bill())
        _equal("its total is", Decimal(invoice["total"]), "less the credit it is", owed - _CREDIT)
        terminal.done(f"the invoice says {owed}: every answer 2xx and 3xx at its plan's price, no more; {_CREDIT} off")
        written = gatectl.do("billing", "invoice", "export", _INVOICE, "--format", "json")
        _equal("the SHA-256 of its file is", hashlib.sha256(written.encode()).hexdigest(), "it says", invoice["sha256"])
        terminal.done("and the SHA-256 of its JSON is the one that stands on it")
        self._check_limit()
        self._check_revoked()

    def _check_limit(self) -> None:
        hobby = self._callers["hobby"]
        most = _STARTER_BURST + self._seconds + 1
        if not hobby.answers[429] or not _STARTER_BURST <= hobby.admitted <= most:
            raise WrongError(f"hobby may send 20 and 1 a second, and was let through {hobby.admitted} times")
        self._terminal.done(f"hobby was let through {hobby.admitted} times (20, then 1 a second), else answered 429")

    def _check_revoked(self) -> None:
        partner = self._callers["partner"]
        if partner.late or not partner.answers[401] or not partner.admitted:
            raise WrongError(f"partner was served {partner.late} times after its key was revoked")
        self._terminal.done(
            f"partner got {partner.answers[401]:,} times 401 once its key was revoked, and nothing else"
        )


def _cost(plan: str, billable: int) -> Decimal:
    """The arithmetic of the plans, once more and by hand."""
    if plan == "starter":
        return billable * _STARTER_PRICE
    beyond = max(0, billable - _PRO_INCLUDED)
    first, rest = _PRO_PRICES
    return _PRO_BASE + min(beyond, _PRO_TIER) * first + max(0, beyond - _PRO_TIER) * rest


def _equal(what: str, value: object, other: str, expected: object) -> None:
    if value != expected:
        raise WrongError(f"{what} {value}, but {other} {expected}")


def _perform(folder: Path, terminal: Terminal) -> list[int]:
    """The whole demo. Returns the pids of the gateway, which has ended by then."""
    with example("orders", folder) as orders, example("products", folder) as products, receiver() as hooks:
        terminal.note(f"orders API on {orders}, products API on {products}")
        terminal.note(
            f"gatewayd --listen 127.0.0.1:0 --state-dir {folder}/state --admin-socket {folder}/admin.sock --workers 2"
        )
        with gateway(folder) as running:
            pids = running.pids()
            Demo(folder, running, {"orders": orders, "products": products}, hooks, terminal).perform()
            code = running.daemon.end()
        if code:
            raise WrongError(f"gatewayd ended with exit code {code}")
    return pids


def main() -> int:
    terminal = Terminal()
    try:
        with ends_on_signals(), tempfile.TemporaryDirectory(prefix="gatewayd-demo-") as folder:
            pids = _perform(Path(folder), terminal)
        if alive := [pid for pid in pids if os.path.exists(f"/proc/{pid}")]:
            raise WrongError(f"gatewayd has ended, but its process {alive[0]} lives on")
        terminal.done("gatewayd and both APIs have ended, the folder is gone")
    except (DaemonError, WrongError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `make demo | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

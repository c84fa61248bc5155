"""What each command asks of the gateway, and the grammar they share."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from gatectl.app import NOUNS, run
from tests.gatectl.conftest import Gatectl
from tests.gatectl.fake_daemon import SECRET, FakeDaemon, key
from tests.gatectl.test_grammar import every_verb

# What a shell does around an example.
_AROUND = re.compile(r"^(?:KEY=\$\(|source <\(|EDITOR=\w+ )")
REQUESTS: tuple[tuple[str, tuple[str, str, dict[str, str], Any]], ...] = (
    (
        "service add shop http://a --target http://b --path /v1/shop --path / --auth none --preserve-host "
        "--timeout 1m30s --connect-timeout 2.5s --body-limit 10MiB --key-header X-Key",
        ("POST", "/v1/services", {}, {
            "slug": "shop", "targets": ["http://a", "http://b"], "paths": ["/v1/shop", "/"], "auth": "none",
            "preserve_host": True, "timeout_s": 90, "connect_timeout_s": 2.5, "body_limit_bytes": 10485760,
            "key_header": "X-Key",
        }),
    ),
    (
        "service add shop unix:/run/shop.sock --no-timeout --first-byte-timeout 5s --idle-timeout 2m "
        "--no-tunnel-lifetime --max-in-flight 50 --no-tls-verify --tls-server-name shop.internal --tls-ca /etc/ca.pem "
        "--tls-cert /etc/../etc/c.pem --tls-key /etc/c.key",
        ("POST", "/v1/services", {}, {
            "slug": "shop", "targets": ["unix:/run/shop.sock"], "timeout_s": None, "first_byte_timeout_s": 5,
            "idle_timeout_s": 120, "tunnel_lifetime_s": None, "in_flight_limit": 50, "tls_verify": False,
            "tls_server_name": "shop.internal", "tls_ca_file": "/etc/ca.pem", "tls_cert_file": "/etc/c.pem",
            "tls_key_file": "/etc/c.key",
        }),
    ),
    ("service set orders --no-timeout --tunnel-lifetime 7d --tls-verify --target https://a",
     ("PATCH", "/v1/services/orders", {}, {"timeout_s": None, "tunnel_lifetime_s": 604800, "tls_verify": True,
                                           "targets": ["https://a"]})),
    ("service set orders --no-max-in-flight --no-tls-server-name --no-tls-ca --no-tls-cert",
     ("PATCH", "/v1/services/orders", {}, {"in_flight_limit": None, "tls_server_name": None, "tls_ca_file": None,
                                           "tls_cert_file": None, "tls_key_file": None})),
    (
        "service add shop http://a --target http://b --weight http://b=3 --balance hash --hash-on header:X-Who "
        "--health /healthz --health-every 2s --health-timeout 1s --healthy-after 1 --unhealthy-after 2 "
        "--eject-after 5 --eject-for 1m --slow-start 30s --breaker-failures 10 --breaker-ratio 0.2 "
        "--breaker-window 20s --breaker-open 5s --request-header 'set X-Env: prod' --request-header 'remove Cookie' "
        "--response-header 'add Vary:X-Env'",
        ("POST", "/v1/services", {}, {
            "slug": "shop", "targets": ["http://a", "http://b"], "weights": {"http://b": 3}, "balance": "hash",
            "hash_on": "header:X-Who",
            "health": {"path": "/healthz", "interval_s": 2, "timeout_s": 1, "healthy_after": 1,
                       "unhealthy_after": 2, "eject_after": 5, "eject_s": 60, "slow_start_s": 30},
            "breaker": {"failures": 10, "ratio": 0.2, "window_s": 20, "open_s": 5},
            "request_headers": [{"action": "set", "name": "X-Env", "value": "prod"},
                                {"action": "remove", "name": "Cookie"}],
            "response_headers": [{"action": "add", "name": "Vary", "value": "X-Env"}],
        }),
    ),
    ("service set orders --no-health --no-eject-after --no-breaker --no-request-header --no-response-header",
     ("PATCH", "/v1/services/orders", {}, {"health": {"path": None, "eject_after": None}, "breaker": {"failures": 0},
                                           "request_headers": [], "response_headers": []})),
    ("service health", ("GET", "/v1/targets", {}, None)),
    ("service health orders -t acme", ("GET", "/v1/targets", {"tenant": "acme", "service": "orders"}, None)),
    ("service drain http://a --service orders --undo",
     ("POST", "/v1/targets/drain", {}, {"target": "http://a", "service": "orders", "undo": True})),
    ("service add x http://a -t acme", ("POST", "/v1/services", {"tenant": "acme"}, {"slug": "x", "targets": ["http://a"]})),
    ("-t acme service list", ("GET", "/v1/services", {"tenant": "acme", "limit": "100"}, None)),
    ("-t default service list -t acme", ("GET", "/v1/services", {"tenant": "acme", "limit": "100"}, None)),
    ("services ls --limit 5 --after 1", ("GET", "/v1/services", {"limit": "5", "after": "1"}, None)),
    ("service set orders --no-path --no-body-limit --no-preserve-host",
     ("PATCH", "/v1/services/orders", {}, {"paths": [], "body_limit_bytes": None, "preserve_host": False})),
    ("service rm orders --yes", ("DELETE", "/v1/services/svc_orders", {}, None)),
    ("service rm orders --force --yes", ("DELETE", "/v1/services/svc_orders", {"force": "true"}, None)),
    ("route add --path /v1/users/{id} --to orders --host *.example.com --method GET --method HEAD --exact --prefix /v2 "
     "--auth none --rate 100/s --rate 5k/min --weight 5 --timeout 5s --first-byte-timeout 1.5s --body-limit 1MiB "
     "--network 10.0.0.0/8 --network ::1 --name new",
     ("POST", "/v1/routes", {}, {
         "service": "orders", "path": "/v1/users/{id}", "exact": True, "host": "*.example.com",
         "methods": ["GET", "HEAD"], "prefix": "/v2", "auth": "none", "rates": ["100/s", "5k/min"], "weight": 5,
         "timeout_s": 5, "first_byte_timeout_s": 1.5, "body_limit_bytes": 1048576, "networks": ["10.0.0.0/8", "::1"],
         "name": "new"})),
    ("route add --path /api --to key", ("POST", "/v1/routes", {}, {"service": None, "path": "/api"})),
    ("route add --host a.b --to svc_key -t acme",
     ("POST", "/v1/routes", {"tenant": "acme"}, {"service": "svc_key", "host": "a.b"})),
    ("routes ls", ("GET", "/v1/routes", {"limit": "100"}, None)),
    ("route list --addresses --all", ("GET", "/v1/routes", {"limit": "1000", "addresses": "true"}, None)),
    ("route list --addresses -q", ("GET", "/v1/routes", {"limit": "100"}, None)),
    ("route set reads --no-host --no-method --no-auth --no-rate --no-timeout --no-first-byte-timeout --no-body-limit "
     "--no-network --no-exact --weight 0 --to products",
     ("PATCH", "/v1/routes/reads", {}, {
         "service": "products", "exact": False, "host": None, "methods": None, "auth": None, "rates": [], "weight": 0,
         "timeout_s": None, "first_byte_timeout_s": None, "body_limit_bytes": None, "networks": []})),
    ("route rm reads --yes", ("DELETE", "/v1/routes/rte_user2222", {}, None)),
    ("route test POST http://api.example.com/v1?x=1",
     ("GET", "/v1/routes/test", {"method": "POST", "url": "http://api.example.com/v1?x=1"}, None)),
    ("plan add p --rate 60/min --rate 10/s --burst 10 --quota 10000/month --price 0.001",
     ("POST", "/v1/plans", {}, {"name": "p", "rates": ["60/min", "10/s"], "burst": 10, "quota": "10000/month",
                                "price": "0.001"})),
    ("plan add q --quota 1k/month --quota-mode soft --alert 80 --alert 100 --max-in-flight 5 --clients 20 --shadow",
     ("POST", "/v1/plans", {}, {"name": "q", "quota": "1k/month", "quota_mode": "soft", "alerts": [80, 100],
                                "in_flight_limit": 5, "clients_limit": 20, "shadow": True})),
    ("plan set pro --enforce --no-alert --no-max-in-flight --clients 0 --quota-mode hard",
     ("PATCH", "/v1/plans/pro", {}, {"quota_mode": "hard", "clients_limit": 0, "shadow": False, "alerts": [],
                                     "in_flight_limit": None})),
    ("plan add r --price 0.1 --unit-price 0.2 --mib-price 0.3 --base-fee 4 --minimum 5 --included 10k "
     "--package 1k=5.00 --count units --billable 2xx,3xx,4xx",
     ("POST", "/v1/plans", {}, {"name": "r", "price": "0.1", "unit_price": "0.2", "mib_price": "0.3", "base_fee": "4",
                                "minimum": "5", "included": "10k", "package": {"size": "1k", "price": "5.00"},
                                "counts": "units", "billable": ["2xx", "3xx", "4xx"]})),
    ("plan set pro --tier 10k=0.001 --tier 1000000=0.0007 --tier rest=0.0005 --tiers volume "
     "--billable 2xx,client-left",
     ("PATCH", "/v1/plans/pro", {}, {
         "tiers": [{"up_to": "10k", "price": "0.001"}, {"up_to": "1000000", "price": "0.0007"},
                   {"up_to": None, "price": "0.0005"}],
         "tier_mode": "volume", "billable": ["2xx", "client-left"]})),
    ("plan set pro --no-tier --no-package --no-included --no-unit-price --no-mib-price --no-base-fee --no-minimum "
     "--count requests --price 0.001",
     ("PATCH", "/v1/plans/pro", {}, {
         "price": "0.001", "unit_price": "0", "mib_price": "0", "base_fee": "0", "minimum": "0", "included": 0,
         "tiers": [], "package": None, "counts": "requests"})),
    ("plan simulate pro --package 1000=5.00 --base-fee 10 --no-included --since 2026-09 --until 2026-10",
     ("POST", "/v1/plans/pro/simulate", {},
      {"package": {"size": "1000", "price": "5.00"}, "base_fee": "10", "included": 0, "since": "2026-09-01T00:00:00Z",
       "until": "2026-10-01T00:00:00Z"})),
    ("plan show pro --version 3", ("GET", "/v1/plans/pro", {"version": "3"}, None)),
    ("plan show pro --versions -t acme",
     ("GET", "/v1/plans/pro/versions", {"tenant": "acme", "limit": "1000"}, None)),
    ("plan simulate pro --like starter --rate 30/min --burst 5 --no-quota --key gw_ab12cd34_x --since 2026-09 "
     "--until 2026-10 --enforce",
     ("POST", "/v1/plans/pro/simulate", {}, {"rates": ["30/min"], "burst": 5, "shadow": False, "quota": None,
                                             "like": "starter", "keys": ["gw_ab12cd34"],
                                             "since": "2026-09-01T00:00:00Z", "until": "2026-10-01T00:00:00Z"})),
    ("plan simulate --like pro --price 0.002 --quota-mode soft --since 2026-09 --until 2026-10 -t acme",
     ("POST", "/v1/plans/pro/simulate", {"tenant": "acme"},
      {"price": "0.002", "quota_mode": "soft", "like": "pro", "since": "2026-09-01T00:00:00Z",
       "until": "2026-10-01T00:00:00Z"})),
    ("plan remove pro --dry-run", ("DELETE", "/v1/plans/pln_pro", {"dry_run": "true"}, None)),
    ("plan set pro --no-rate --no-quota --price 0",
     ("PATCH", "/v1/plans/pro", {}, {"rates": [], "quota": None, "price": "0"})),
    ("plan remove pro --yes", ("DELETE", "/v1/plans/pln_pro", {}, None)),
    ("key create --service orders --service products --plan pro --name ci2 --expires 2100-01-01",
     ("POST", "/v1/keys", {}, {"services": ["orders", "products"], "plan": "pro", "name": "ci2",
                               "expires": "2100-01-01T00:00:00Z"})),
    ("key set ci --all-services --no-plan --no-expiry",
     ("PATCH", "/v1/keys/ci", {}, {"services": None, "plan": None, "expires": None})),
    ("keys list --service orders --plan pro --status revoked",
     ("GET", "/v1/keys", {"limit": "100", "service": "orders", "plan": "pro", "status": "revoked"}, None)),
    ("key revoke ci --yes", ("POST", "/v1/keys/key_ab12cd34/revoke", {}, {})),
    ("key revoke ci --generation 1 --yes", ("POST", "/v1/keys/key_ab12cd34/revoke", {}, {"generation": 1})),
    ("key create --allow 'GET /v1/*' --allow '* /x' --network 10.0.0.0/8 --label team=a --label b=c=d --rate 5/s "
     "--burst 9 --quota 10/month --max-in-flight 3 --price 0.5 --no-plan",
     ("POST", "/v1/keys", {}, {
         "allow": ["GET /v1/*", "* /x"], "networks": ["10.0.0.0/8"], "labels": {"team": "a", "b": "c=d"},
         "rates": ["5/s"], "burst": 9, "quota": "10/month", "in_flight_limit": 3, "price": "0.5", "plan": None,
     })),
    ("key set ci --no-allow --no-network --no-label --no-rate --no-quota --no-max-in-flight --no-price",
     ("PATCH", "/v1/keys/ci", {}, {"allow": None, "networks": None, "labels": None, "rates": None, "quota": None,
                                   "in_flight_limit": None, "price": None})),
    ("key list --label team=a --status disabled",
     ("GET", "/v1/keys", {"limit": "100", "label": "team=a", "status": "disabled"}, None)),
    ("key rotate ci", ("POST", "/v1/keys/ci/rotate", {}, {})),
    ("key rotate ci --overlap 7d --retire-after 1h",
     ("POST", "/v1/keys/ci/rotate", {}, {"overlap": "7d", "retire_after": "1h"})),
    ("key rotate ci --overlap 0 --no-retire --yes",
     ("POST", "/v1/keys/ci/rotate", {}, {"overlap": "0", "retire_after": None})),
    ("key disable ci -t acme", ("POST", "/v1/keys/key_ab12cd34/disable", {"tenant": "acme"}, {})),
    ("key enable ci", ("POST", "/v1/keys/key_ab12cd34/enable", {}, {})),
    ("tenant add initech --name Initech --currency USD",
     ("POST", "/v1/tenants", {}, {"slug": "initech", "name": "Initech", "currency": "USD"})),
    ("tenant add initech --time-zone Europe/Rome --contact ops@initech.example --rate 1000/s --rate 1M/d --burst 50 "
     "--allow 'GET /v1/*' --allow '* /health'",
     ("POST", "/v1/tenants", {}, {"slug": "initech", "time_zone": "Europe/Rome", "contact": "ops@initech.example",
                                  "allow": ["GET /v1/*", "* /health"], "rates": ["1000/s", "1M/d"], "burst": 50})),
    ("tenant set acme --default-plan pro --no-rate --no-allow",
     ("PATCH", "/v1/tenants/acme", {}, {"default_plan": "pro", "allow": [], "rates": []})),
    ("tenant set acme --no-default-plan", ("PATCH", "/v1/tenants/acme", {}, {"default_plan": None})),
    ("tenant suspend acme", ("PATCH", "/v1/tenants/acme", {}, {"suspended": True})),
    ("tenant resume acme", ("PATCH", "/v1/tenants/acme", {}, {"suspended": False})),
    ("tenant remove acme --force --dry-run",
     ("DELETE", "/v1/tenants/ten_acme", {"force": "true", "dry_run": "true"}, None)),
    ("tenant set acme --suspend", ("PATCH", "/v1/tenants/acme", {}, {"suspended": True})),
    ("tenant remove acme --force --yes", ("DELETE", "/v1/tenants/ten_acme", {"force": "true"}, None)),
    ("client add kiosk --key gw_ab12cd34_secret --rate 5/s --burst 10",
     ("POST", "/v1/clients", {}, {"name": "kiosk", "key": "gw_ab12cd34", "rates": ["5/s"], "burst": 10})),
    ("clients ls --key ci", ("GET", "/v1/clients", {"limit": "100", "key": "ci"}, None)),
    ("client show kiosk-7 --key ci -t acme",
     ("GET", "/v1/clients/kiosk-7", {"tenant": "acme", "key": "ci"}, None)),
    ("client set kiosk-7 --no-rate", ("PATCH", "/v1/clients/kiosk-7", {}, {"rates": None})),
    ("client set kiosk-7 --burst 9", ("PATCH", "/v1/clients/kiosk-7", {}, {"burst": 9})),
    ("client remove kiosk-7 --yes", ("DELETE", "/v1/clients/cli_kiosk-7", {}, None)),
    ("quota show", ("GET", "/v1/quotas", {"limit": "100"}, None)),
    ("quotas show ci -t acme", ("GET", "/v1/quotas/ci", {"tenant": "acme"}, None)),
    ("quota grant ci 50k --until 2100-12-01 --reason 'launch day'",
     ("POST", "/v1/quotas/ci/grants", {}, {"units": "50k", "until": "2100-12-01T00:00:00Z", "reason": "launch day"})),
    ("quota reset ci --yes --reason oops", ("POST", "/v1/quotas/key_ab12cd34/reset", {}, {"reason": "oops"})),
    ("usage show --since 2026-09-01 --until 2026-10 --by key,status --by service --interval day --service orders "
     "--key ci",
     ("GET", "/v1/usage", {"since": "2026-09-01T00:00:00Z", "until": "2026-10-01T00:00:00Z",
                           "by": "key,status,service", "interval": "day", "service": "orders", "key": "ci"}, None)),
    ("usage top --by route --of refused -n 3 --since 2026-09-01 --until 2026-09-02 -t acme",
     ("GET", "/v1/usage/top", {"tenant": "acme", "since": "2026-09-01T00:00:00Z", "until": "2026-09-02T00:00:00Z",
                               "by": "route", "of": "refused", "limit": "3"}, None)),
    ("billing show --period 2026-09", ("GET", "/v1/billing", {"period": "2026-09"}, None)),
    ("bills keys", ("GET", "/v1/billing/keys", {}, None)),
    ("audit list -t acme", ("GET", "/v1/audit", {"tenant": "acme", "limit": "100"}, None)),
)  # fmt: skip


@pytest.mark.parametrize(("command", "expected"), REQUESTS, ids=[command for command, _ in REQUESTS])
def test_requests(gatectl: Gatectl, daemon: FakeDaemon, command: str, expected: tuple[Any, ...]) -> None:
    ended = gatectl(*shlex.split(command))
    assert (ended.code, ended.err) == (0, "")
    assert daemon.requests[-1] == expected


def test_the_request_of_a_tail(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    gatectl(*shlex.split("usage tail --service orders --key gw_ab12cd34_secret --client kiosk --status 4xx --refused"))
    filters = {"service": "orders", "key": "gw_ab12cd34", "client": "kiosk", "status": "4xx", "refused": "true"}
    assert daemon.requests[-1] == ("GET", "/v1/usage/tail", filters, None)
    gatectl(*shlex.split("usage tail --all-tenants --errors -n 20"))
    assert daemon.requests[-1][2] == {"everyone": "true", "errors": "true", "lines": "20"}
    gatectl("usage", "tail", "-t", "acme")
    assert daemon.requests[-1][2] == {"tenant": "acme"}


def test_a_file_is_named_by_its_whole_path(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    gatectl("service", "set", "orders", "--tls-ca", "certs/ca.pem")
    assert daemon.requests[-1][3] == {"tls_ca_file": str(Path.cwd() / "certs" / "ca.pem")}


@pytest.mark.parametrize(("name", "command"), every_verb(), ids=[name for name, _ in every_verb()])
def test_every_verb_has_a_summary_and_two_examples_that_work(
    daemon: FakeDaemon,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    command: Any,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # some write files, and some in the home of who runs them
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setenv("GATECTL_SOCKET", str(daemon.path))
    summary = command.help.partition("\n")[0]
    assert summary.endswith(".")
    assert len(summary) <= 70
    examples = command.epilog.splitlines()
    assert len(examples) >= 2
    for example in examples:
        assert len(example) <= 78
        alone = _AROUND.sub("", example.replace("$(cat noted.sha256)", "ab" * 32)).removesuffix(")")
        words = shlex.split(re.split(" [<>|] ", alone)[0])
        assert words[0] == "gatectl"
        assert " ".join(words[1:]).startswith(name)
        code = run(words[1:])
        assert code == (6 if name == "usage tail" else code), "it ends with the gateway"
        said = capsysbinary.readouterr().err
        assert code != 2 or b"nobody to ask" in said or b"cannot read" in said, example


def test_nouns_are_the_files_in_commands() -> None:
    import gatectl.commands

    files = {path.stem for path in Path(next(iter(gatectl.commands.__path__))).glob("*.py")} - {"__init__"}
    assert files == {noun.name for noun in NOUNS}


@pytest.mark.usefixtures("daemon")
def test_forms(gatectl: Gatectl) -> None:
    assert gatectl("service", "list", "-o", "id").out == "svc_orders\nsvc_products\n"
    assert gatectl("service", "list", "-q").out == "svc_orders\nsvc_products\n"
    assert gatectl("-q", "service", "list").out == "svc_orders\nsvc_products\n"
    assert gatectl("service", "list", "--columns", "auth,slug", "--no-header").out == "key\torders\nkey\tproducts\n"
    assert (
        gatectl("service", "show", "orders", "--columns", "url", "--no-header").out
        == "http://127.0.0.1:8080/v1/orders\n"
    )
    rows = list(csv.reader(io.StringIO(gatectl("service", "list", "-o", "csv").out)))
    assert rows[0][:3] == ["slug", "url", "targets"]
    assert rows[2][2] == "http://127.0.0.1:8002,http://127.0.0.1:8003"
    lines = gatectl("service", "list", "-o", "ndjson").out.splitlines()
    assert [json.loads(line)["slug"] for line in lines] == ["orders", "products"]
    picked = json.loads(gatectl("usage", "show", "-o", "json", "--columns", "service,cost").out)
    assert picked["items"][0] == {"service": "orders", "cost": "12.342"}


@pytest.mark.parametrize("command", ["service list", "service show orders", "status", "billing show", "usage show"])
@pytest.mark.usefixtures("daemon")
def test_yaml_says_what_json_says(gatectl: Gatectl, command: str) -> None:
    """In the same order; what would be another type in YAML's eyes (a time, an amount) stays a string."""
    in_json = json.loads(gatectl(*command.split(), "-o", "json").out)
    text = gatectl(*command.split(), "-o", "yaml").out
    in_yaml = yaml.safe_load(text)
    assert (in_yaml, list(in_yaml)) == (in_json, list(in_json))
    assert "{" not in text.replace("{}", "")


def test_yaml_keeps_letters_and_is_a_document_a_line_where_there_is_no_end(
    gatectl: Gatectl, daemon: FakeDaemon
) -> None:
    daemon.state["tenants"][0]["name"] = "Zürich 日本"
    assert "name: Zürich 日本\n" in gatectl("tenant", "list", "-o", "yaml").out
    assert "slug: acme\n" in gatectl("tenant", "list", "-o", "yaml", "--columns", "slug").out
    told = list(yaml.safe_load_all(gatectl("usage", "tail", "-o", "yaml").out))
    assert [line.get("status", "lost") for line in told] == [200, 429, "lost", 502]


@pytest.mark.usefixtures("daemon")
def test_colours_are_for_terminals_that_want_them(gatectl: Gatectl) -> None:
    assert "\x1b[" in gatectl.at_terminal("key", "list").out
    assert "\x1b[" in gatectl.at_terminal("--help").out
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        gatectl.environment |= {"TERM": "xterm-256color", name: value}
        assert "\x1b[3" not in gatectl.at_terminal("key", "list").out
        assert "\x1b[" not in gatectl.at_terminal("--help").out
    assert "\x1b" not in gatectl("key", "list", "-o", "table").out


@pytest.mark.usefixtures("daemon")
def test_a_table_in_a_pipe_is_as_wide_as_it_is(gatectl: Gatectl) -> None:
    assert len(gatectl("service", "list", "-o", "wide").out.splitlines()) == 4  # one of them for the second target


def test_long_text_folds_and_is_never_cut(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["services"][0]["targets"] = ["http://" + "a-very-long-host-name." * 8 + "example.com:8001"]
    written = gatectl.at_terminal("service", "list").plain
    assert max(map(len, written.splitlines())) <= 80
    assert "…" not in written
    assert "".join(written.split()).count("a-very-long-host-name") >= 1


def test_an_empty_list(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["services"].clear()
    assert gatectl("service", "list", "--no-header").out == ""
    assert json.loads(gatectl("service", "list", "-o", "json").out) == {"items": []}
    assert gatectl.at_terminal("service", "list").plain == "none\n"


def test_a_degraded_gateway_exits_9(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["status"].update(state="degraded", problems=["the disk is full"])
    assert gatectl("status").code == 9
    ended = gatectl.at_terminal("status")
    assert ended.code == 9
    assert "the disk is full" in ended.plain


def test_a_long_list_says_that_it_goes_on(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["keys"] = [key(f"{number:08}", "", [], None) for number in range(2500)]
    cut = gatectl("key", "list", "-o", "id")
    assert len(cut.out.splitlines()) == 100
    assert cut.err == "gatectl: there are more; go on with --after 100, or take --all\n"
    assert gatectl("key", "list", "-o", "id", "--after", "100", "--limit", "1").out == "key_00000100\n"
    assert gatectl("key", "list", "-q").err == ""
    whole = gatectl("key", "list", "--all", "-o", "ndjson")
    assert (whole.code, whole.err, len(whole.out.splitlines())) == (0, "", 2500)
    assert len(json.loads(gatectl("key", "list", "--limit", "1500", "-o", "json").out)["items"]) == 1500


@pytest.mark.usefixtures("daemon")
def test_a_new_key_alone_goes_into_a_pipe(gatectl: Gatectl) -> None:
    assert gatectl("key", "create") == (0, SECRET + "\n", "")
    assert gatectl("key", "create", "-q") == (0, SECRET + "\n", "")
    assert json.loads(gatectl("key", "create", "-o", "json").out)["key"] == SECRET


@pytest.mark.usefixtures("daemon")
def test_a_person_is_told_that_the_key_comes_once(gatectl: Gatectl) -> None:
    written = gatectl.at_terminal("key", "create", "--service", "orders").plain
    assert written.count(SECRET) == 1
    assert "This is the only time that the key is shown" in written


@pytest.mark.usefixtures("daemon")
def test_a_key_goes_into_a_file_instead(gatectl: Gatectl, folder: Path) -> None:
    file = folder / "key"
    ended = gatectl("key", "create", "--out", str(file), "-o", "json")
    assert file.read_text() == SECRET + "\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "key" not in json.loads(ended.out)
    assert SECRET not in ended.out + ended.err
    assert gatectl("key", "create", "--out", str(folder / "other"), "-o", "id").out == "key_nw22pq33\n"


def test_a_key_that_cannot_be_written_is_never_made(gatectl: Gatectl, daemon: FakeDaemon, folder: Path) -> None:
    (folder / "taken").write_text("mine")
    assert gatectl("key", "create", "--out", str(folder / "taken")).code == 2
    assert gatectl("key", "create", "--out", str(folder / "no" / "folder")).code == 1
    assert daemon.requests == []
    assert (folder / "taken").read_text() == "mine"
    assert gatectl("key", "create", "--plan", "nope", "--out", str(folder / "new")).code == 3
    assert not (folder / "new").exists()


def test_a_whole_key_is_never_sent_as_a_name(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["keys"].append(key("nw22pq33", "", [], None))
    assert gatectl("key", "show", SECRET).code == 0
    assert daemon.requests[-1][1] == "/v1/keys/gw_nw22pq33"


def test_revoking_asks(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    refused = gatectl.at_terminal("key", "revoke", "ci", typed="n\n")
    assert refused.code == 2
    assert "Revoke key gw_ab12cd34 (ci)? [y/N]" in refused.plain
    assert daemon.state["keys"][0]["status"] == "active"
    left = gatectl.at_terminal("key", "revoke", "ci", typed="\x04")  # Ctrl-D
    assert left.code == 2
    assert left.plain.endswith("[y/N] \ngatectl: not confirmed, nothing was done\n")
    agreed = gatectl.at_terminal("key", "revoke", "ci", typed="y\n")
    assert agreed.code == 0
    assert "Revoked key gw_ab12cd34 (ci)." in agreed.plain
    assert daemon.state["keys"][0]["status"] == "revoked"


def test_forgiving_what_was_used_asks(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("quota", "reset", "ci").code == 2
    refused = gatectl.at_terminal("quota", "reset", "ci", typed="n\n")
    assert refused.code == 2
    assert "Forgive 12345 used units of the quota of key gw_ab12cd34 (ci)? [y/N]" in refused.plain
    assert {method for method, *_ in daemon.requests} == {"GET"}
    tried = gatectl("quota", "reset", "ci", "--dry-run")
    assert tried.out == "would forgive 12345 used units of the quota of key gw_ab12cd34 (ci)\n"
    assert daemon.requests[-1][2] == {"dry_run": "true"}
    assert gatectl.at_terminal("quota", "reset", "ci", typed="y\n").code == 0
    assert daemon.requests[-1][2] == {}


def test_removing_a_tenant_asks_for_its_name(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl.at_terminal("tenant", "remove", "acme", typed="y\n").code == 2
    assert len(daemon.state["tenants"]) == 2
    assert gatectl.at_terminal("tenant", "remove", "acme", typed="acme\n").code == 0
    assert len(daemon.state["tenants"]) == 1


def test_nothing_is_done_unless_all_exist(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("key", "revoke", "ci", "nope", "--yes").code == 3
    assert gatectl("service", "remove", "orders", "nope", "--yes").code == 3
    assert daemon.state["keys"][0]["status"] == "active"
    assert len(daemon.state["services"]) == 2


def test_dry_runs_change_nothing(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("key", "revoke", "ci", "gw_ab12cd34", "--dry-run").out == "would revoke key gw_ab12cd34 (ci)\n"
    assert {method for method, *_ in daemon.requests} == {"GET"}
    # What may be refused is asked of the gateway, which tries it and takes it back.
    assert gatectl("tenant", "remove", "acme", "--dry-run").out == "would remove tenant acme\n"
    assert gatectl("plan", "remove", "pro", "--dry-run").out == "would remove plan pro\n"
    assert gatectl("service", "remove", "orders", "--dry-run").out == "would remove service orders\n"
    assert len(daemon.state["tenants"]) == len(daemon.state["plans"]) == len(daemon.state["services"]) == 2
    refused = gatectl("tenant", "remove", "default", "--dry-run")
    assert (refused.code, refused.out) == (4, "")
    assert "cannot be removed" in refused.err


def test_names_are_never_paths(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("service", "show", "../keys?x=1#y z/ü").code == 3
    assert daemon.requests[-1][1] == "/v1/services/..%2Fkeys%3Fx%3D1%23y%20z%2F%C3%BC"


def test_a_byte_that_is_no_utf8_is_no_traceback(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    assert gatectl("service", "show", "\udcff").code == 3
    assert daemon.requests[-1][1] == "/v1/services/%FF"


@pytest.mark.usefixtures("daemon")
def test_the_tenant_is_carried_into_what_to_type_next(gatectl: Gatectl) -> None:
    written = gatectl.at_terminal("service", "add", "a", "http://b", "-t", "acme").plain
    assert "Next: gatectl key create --service a -t acme\n" in written


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("route add --path /v1", "--to is missing"),
        ("route add --to orders", "neither --path nor --host is given"),
        ("route set reads", "nothing to change"),
        ("route set reads --rate 5/s --no-rate", "--rate and --no-rate contradict each other"),
        ("route add --path /v1 --to orders --timeout 5", "--timeout: '5' is not a duration"),
    ],
)
def test_routes_that_cannot_be(gatectl: Gatectl, daemon: FakeDaemon, command: str, says: str) -> None:
    ended = gatectl(*shlex.split(command))
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err
    assert daemon.requests == []


def test_a_route_test_tells_whose_request_it_is(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    taken = gatectl("route", "test", "GET", "/v1/users/7")
    assert taken.out.splitlines()[1].split("\t") == [
        "taken", "any", "/v1/users/{id}", "GET,HEAD", "orders", "reads", "no", "rte_user2222"
    ]  # fmt: skip
    nothing = gatectl("route", "test", "GET", "/nothing")
    assert (nothing.code, nothing.err) == (0, "gatectl: no route is taken: the answer is 404 no_route\n")
    others = gatectl("route", "test", "GET", "/acme/x")
    assert (others.code, others.err) == (0, "gatectl: a route of another tenant is taken\n")
    at_terminal = gatectl.at_terminal("route", "test", "GET", "/v1/users/7").plain
    assert "another host" in at_terminal
    assert "another path" not in at_terminal


@pytest.mark.usefixtures("daemon")
def test_a_simulation_of_a_month_without_all_its_hours_says_so(gatectl: Gatectl) -> None:
    simulate = ("plan", "simulate", "starter", "--price", "0.002", "-o", "json")
    assert gatectl(*simulate).err == ""
    assert "hours before 2025-01-10 00:00Z are gone" in gatectl(*simulate, "--since", "2025-01-10").err


def test_one_worker_is_not_told_as_several(gatectl: Gatectl, daemon: FakeDaemon) -> None:
    daemon.state["status"]["workers"][1:] = []
    assert " of 1 worker\n" in gatectl("status", "-o", "table").out


@pytest.mark.parametrize(
    ("back_to", "told"), [("2026-11-21T02:00:05Z", "None yet; "), ("2026-11-20T18:30:00Z", "None since 2026-11-20 18:")]
)
def test_logs_of_a_gateway_without_requests(
    gatectl: Gatectl, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, back_to: str, told: str
) -> None:
    answer = {"at": "2026-11-21T02:00:05Z", "items": [], "looked_back_to": back_to, "ended_by": "kept"}
    monkeypatch.setattr(daemon, "answer", lambda *_: (200, answer))
    assert told in gatectl.at_terminal("logs").plain

"""`gatectl alert`: who is told of quotas, spending and refusals, by signed webhooks."""

from typing import Annotated, Any

import typer

from gatectl import consent, paging
from gatectl.client import path_of, without_secret
from gatectl.errors import FAILED, MisuseError
from gatectl.grammar import Call, named_as_typed, noun
from gatectl.keys import secrets
from gatectl.output import Column

COLUMNS = (
    Column("id"),
    Column("when"),
    Column("key", "any"),
    Column("state", "status"),
    Column("url"),
    Column("pending", "number", wide=True),
    Column("failed", "number", wide=True),
    Column("kind", wide=True),
    Column("quota", "number", wide=True),
    Column("spend", "money", wide=True),
    Column("refusals", "number", wide=True),
    Column("delivered", "number", wide=True),
    Column("error", wide=True),
    Column("tenant", wide=True),
    Column("created_at", "time", wide=True),
)
SHOW_COLUMNS = (*COLUMNS, Column("events", "events"))
TEST_COLUMNS = (Column("delivered"), Column("status"), Column("error"), Column("id"))
SECRET = secrets.Shown(Column("secret"), "signing secret")

_OPTIONS = {
    "quota": "--quota", "spend": "--spend", "refusals": "--refusals", "key": "--key", "url": "--url",
    "secret": "--secret-stdin",
}  # fmt: skip
_FROM_FILE = "gatectl alert add ... --secret-stdin < FILE"

Ref = Annotated[str, typer.Argument(metavar="ALERT", help="Its id, alr_...")]


def add(
    call: Call,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Where to tell it, http or https.")],
    quota: Annotated[
        int | None, typer.Option("--quota", metavar="PERCENT", help="A key has used so much of its month's quota.")
    ] = None,
    spend: Annotated[
        str | None, typer.Option("--spend", metavar="AMOUNT", help="The bill of this cycle has come to so much.")
    ] = None,
    refusals: Annotated[
        str | None, typer.Option("--refusals", metavar="N/min", help="So many requests were refused in a minute.")
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Of this key alone.  [default: of the tenant]")
    ] = None,
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Sign with the secret whsec_... on standard input.")
    ] = False,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Write the secret to this new file (mode 0600), not to stdout."),
    ] = None,
) -> None:
    """Tell a webhook of a quota, of spending, or of refusals.

    Deliveries are signed per Standard Webhooks. The signing secret is shown this once; into a pipe goes the secret
    alone.
    """
    if secret_stdin and out is not None:
        raise MisuseError("--out writes down a new secret, and --secret-stdin gives one", "give one of them")
    given = {"url": url, "quota": quota, "spend": spend, "refusals": refusals, "key": key and without_secret(key)}
    body = {field: value for field, value in given.items() if value is not None}
    if len(body.keys() & {"quota", "spend", "refusals"}) != 1:
        raise MisuseError("an alert is of one thing", "give one of --quota, --spend and --refusals")
    if secret_stdin:
        body["secret"] = secrets.from_stdin(_FROM_FILE, "secret", "Signing secret: ")
    else:
        secrets.refuse_losing(call, out, SECRET)

    def ask() -> dict[str, Any]:
        with named_as_typed(_OPTIONS):
            return dict(call.gateway.post("/v1/alerts", body, call.in_tenant))

    def removed(alert: dict[str, Any]) -> str:
        call.gateway.delete(path_of("alerts", alert["id"]), call.in_tenant)
        return f"the new alert {alert['id']} was removed again"

    if secret_stdin:
        alert = ask()
        call.printer.one(alert, COLUMNS)
    else:
        alert = secrets.make(out, ask, removed, SECRET)
        secrets.show(call, alert, out, COLUMNS, f"Added alert {alert['id']}: {alert['when']}.", removed, SECRET)
    call.printer.note(f"\nNext: {call.example('alert test ' + alert['id'])}")


def list_(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List alerts, and whether their receivers take what they are told."""
    paging.show_list(call, "/v1/alerts", COLUMNS, limit, after, every)


def show(call: Call, alert: Ref) -> None:
    """Show an alert with its latest events, and why one was not delivered."""
    call.printer.one(call.gateway.get(path_of("alerts", alert), call.in_tenant), SHOW_COLUMNS)


def test(call: Call, alert: Ref) -> None:
    """Send a test event at once, and say what came of it.

    Exits with 1 when it was not delivered. An alert that was disabled by a 410 is enabled by a test that arrives.
    """
    told = call.gateway.post(path_of("alerts", alert, "test"), {}, call.in_tenant)
    call.printer.one(told, TEST_COLUMNS)
    if not told["delivered"]:
        raise typer.Exit(FAILED)


def remove(
    call: Call,
    alerts: Annotated[list[str], typer.Argument(metavar="ALERT", help="Ids.")],
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Remove alerts, and what they had yet to tell."""
    consent.remove(call, "alert", alerts, COLUMNS, _described, yes=yes, dry_run=dry_run)


def _described(alert: Any) -> str:
    return f"{alert['id']} ({alert['when']})"


command = noun(
    "alert",
    "Webhooks that are told of quotas, spending and refusals.",
    {
        "add": (
            add,
            [
                "gatectl alert add --quota 80 --url https://ops.example.com/hooks",
                "gatectl alert add --refusals 100/min --key ci --url https://a.example/hook",
            ],
        ),
        "list": (list_, ["gatectl alert list", "gatectl alert list -o json"]),
        "show": (show, ["gatectl alert show alr_x9by6pnj", "gatectl alert show alr_x9by6pnj -o json"]),
        "test": (test, ["gatectl alert test alr_x9by6pnj", "gatectl alert test alr_x9by6pnj -o json"]),
        "remove": (remove, ["gatectl alert remove alr_x9by6pnj --dry-run", "gatectl alert remove alr_x9by6pnj --yes"]),
    },
)

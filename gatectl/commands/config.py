"""`gatectl config`: all that is configured as one file, and its history."""

import sys
from typing import Annotated, Any

import typer

from gatectl import consent, paging
from gatectl.client import path_of
from gatectl.errors import DIFFERENT
from gatectl.grammar import Call, noun
from gatectl.output import Column

# What lies in `gatectl.config` is imported by the verbs: it needs yaml, which the history, for one, does not.

_KINDS = ("service", "plan", "route", "key")
MISTAKE_COLUMNS = (
    Column("file"),
    Column("line", "number"),
    Column("column", "number"),
    Column("detail"),
    Column("pointer", wide=True),
)

Files = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE", help="YAML or JSON, - for stdin, or a folder of files; repeatable."),
]
Prune = Annotated[bool, typer.Option("--prune", help="Also remove what the file's lists do not name.")]
Message = Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Why, for the history.")]
Number = Annotated[int, typer.Argument(metavar="N", min=1, help="Of a revision, as 'config history' has it.")]


def dump(
    call: Call,
    file: Annotated[
        str | None, typer.Option("--file", "-f", metavar="FILE", help="Write it there.  [default: to stdout]")
    ] = None,
) -> None:
    """Write all that is configured as YAML; of one tenant with --tenant.

    The same configuration gives the same bytes. No secrets are in it: of keys it says what they may, not what they are.
    """
    from gatectl.config import dumping

    form = dumping.form_of(call)
    document = call.gateway.get("/v1/config", call.in_tenant)
    # Neither the time nor the gateway: dumps are compared, also of two gateways.
    text = dumping.text_of(document, form, f"Written by: gatectl config dump{call.elsewhere}")
    dumping.write(text, file)
    dumping.warn_incomplete(call, text)
    if file not in (None, "-"):
        call.printer.note(f"Wrote {file}: {_contents(document)}.")


def validate(call: Call, file: Files) -> None:
    """Look for mistakes in a file, as the gateway would. Nothing is changed.

    A line each, with line and column; exit code 4 if there are any.
    """
    from gatectl.config import applying, files
    from gatectl.config.mistakes import MistakenError

    try:
        document = files.document_of(file)
        with applying.placed(document):
            applying.compared(call, document, prune=False)
    except MistakenError as error:
        _show_mistakes(call, error)
        error.hint = "mend them and try again"
        raise
    if call.printer.whole({"valid": True, "errors": []}):
        return
    call.printer.note(f"{document.name} is valid: {_contents(document.data)}.")


def diff(call: Call, file: Files, prune: Prune = False) -> None:
    """Show what 'config apply' would change; exit code 7 if anything.

    + is added, ~ changed, - removed.
    """
    from gatectl.config import applying, files

    with applying.told():
        document = files.document_of(file)
        with applying.placed(document):
            answer = applying.compared(call, document, prune=prune)
    left = "" if prune else applying.left_over(call, document, answer)
    if answer["differences"] or call.printer.asked:
        applying.show_differences(call, answer)
    elif not call.printer.quiet:
        call.printer.text("No differences.")
    if left:
        call.printer.warn(left)
    if answer["differences"]:
        raise typer.Exit(DIFFERENT)


def apply(
    call: Call,
    file: Files,
    prune: Prune = False,
    message: Message = None,
    yes: consent.Yes = False,
    dry_run: consent.DryRun = False,
) -> None:
    """Make the configuration what a file says: all of it, or nothing.

    Shows first what would change, and asks. What the file does not name stays, unless --prune is given. It becomes a
    revision, to which 'config rollback' goes back.
    """
    from shlex import quote

    from gatectl.config import applying, files

    with applying.told():
        document = files.document_of(file)
        again = f"config diff{''.join(f' -f {quote(name)}' for name in file)}{' --prune' * prune}"
        wish = applying.wish_of(call, document, prune=prune, message=message, again=again)
        with applying.placed(document):
            if dry_run:
                applying.show_differences(call, wish.rehearsed())
                return
            answer = applying.compared(call, document, prune=prune)
            left = "" if prune or yes else applying.left_over(call, document, answer)
            applying.carry_out(call, wish, answer, yes=yes, note=left)


def edit(call: Call, message: Message = None, yes: consent.Yes = False) -> None:
    """Change the configuration in $VISUAL, $EDITOR or vi."""
    from gatectl.config import editing

    editing.edit(call, yes=yes, message=message)


def history(call: Call, limit: paging.Limit = 100, after: paging.After = None, every: paging.All = False) -> None:
    """List the revisions of the configuration, the newest first.

    Of kind 'found' are those that were not applied: what other commands had made of it by then.
    """
    from gatectl.config.applying import REVISION_COLUMNS

    paging.show_list(call, "/v1/config/revisions", REVISION_COLUMNS, limit, after, every)


def show(call: Call, number: Number) -> None:
    """Write the configuration as it was in a revision."""
    from gatectl.config import dumping

    form = dumping.form_of(call)
    revision = call.gateway.get(path_of("config", "revisions", str(number)))
    message = f": {revision['message']}" if revision["message"] else ""
    comment = f"Revision {revision['number']}, {revision['kind']} by {revision['actor']} at {revision['at']}{message}"
    text = dumping.text_of(revision if form == "json" else revision["document"], form, comment)
    dumping.write(text, None)
    dumping.warn_incomplete(call, text)


def rollback(
    call: Call, number: Number, message: Message = None, yes: consent.Yes = False, dry_run: consent.DryRun = False
) -> None:
    """Make the configuration again what it was in a revision.

    What came since is removed, but for tenants, which have to be removed before. Keys that were revoked since come back
    without their secrets.
    """
    from gatectl.config import applying

    again = f"config rollback {number} --dry-run"
    wish = applying.Wish(call, applying.ROLLBACK, {"number": number}, {"message": message}, again)
    with applying.restored(number):
        answer = wish.rehearsed()
        if dry_run:
            applying.show_differences(call, answer)
        else:
            applying.carry_out(call, wish, answer, yes=yes)


def _show_mistakes(call: Call, error: Any) -> None:
    """They are what was asked for: on stdout."""
    from gatectl.config import applying

    printer = call.printer
    if not printer.asked:
        applying.tell(error, sys.stdout)
        return
    items = [
        {
            "file": mistake.file,
            "line": mistake.place and mistake.place.line,
            "column": mistake.place and mistake.place.column,
            "detail": mistake.detail,
            "pointer": mistake.pointer,
        }
        for mistake in error.mistakes
    ]
    if not printer.whole({"valid": False, "errors": items}):
        printer.many([items], MISTAKE_COLUMNS)


def _contents(document: Any) -> str:
    """`2 tenants, 3 services, 1 plan`."""
    tenants = document.get("tenants") or []
    counts = [("tenant", len(tenants))]
    counts += [(kind, sum(len(tenant.get(f"{kind}s") or []) for tenant in tenants)) for kind in _KINDS]
    return ", ".join(f"{count:,} {kind}{'s' * (count != 1)}" for kind, count in counts if count) or "nothing"


command = noun(
    "config",
    "All that is configured as one file: dump, diff, apply, roll back.",
    {
        "dump": (dump, ["gatectl config dump -f gateway.yaml", "gatectl config dump -t acme -o json"]),
        "validate": (validate, ["gatectl config validate -f gateway.yaml", "gatectl config validate -f gateway.d"]),
        "diff": (diff, ["gatectl config diff -f gateway.yaml", "gatectl config diff -f gateway.yaml --prune -o json"]),
        "apply": (
            apply,
            [
                "gatectl config apply -f gateway.yaml",
                "gatectl config apply -f gateway.yaml --prune --yes -m 'as in git'",
            ],
        ),
        "edit": (edit, ["gatectl config edit", "EDITOR=nano gatectl config edit -t acme"]),
        "history": (history, ["gatectl config history", "gatectl config history --limit 5 -o json"]),
        "show": (show, ["gatectl config show 12", "gatectl config show 12 -o json"]),
        "rollback": (rollback, ["gatectl config rollback 12 --dry-run", "gatectl config rollback 12 --yes"]),
    },
)

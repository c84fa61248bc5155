"""`gatectl version`: which gatectl this is, and which gatewayd answers it."""

from gatectl import __version__
from gatectl.errors import GatectlError
from gatectl.grammar import Call, verb_command
from gatectl.output import Column

COLUMNS = (Column("client"), Column("gateway"))


def version(call: Call) -> None:
    """Show the version of this program, and of the gateway if it answers.

    A gateway that is down is told on stderr, and is no error here.
    """
    told: dict[str, str | None] = {"client": __version__, "gateway": None}
    try:
        told["gateway"] = call.gateway.get("/v1/status")["version"]
    except GatectlError as error:
        call.printer.warn(str(error))
    call.printer.one(told, COLUMNS)


command = verb_command("version", version, ["gatectl version", "gatectl version -o json"])

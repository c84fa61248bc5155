"""gatectl: operates a gatewayd from a terminal, over its admin API and by nothing else.

The words of this code base:

- noun, verb: `gatectl NOUN VERB`; a noun is a file in `commands`, a verb a function in it (`app` lists the nouns).
- call: one invocation with what was given on its command line: tenant, form of output, socket (`grammar.Call`).
- gateway: the daemon at the other end of the admin socket (`client.Gateway`).
- column, form: a field of an object as people see it; one of the ways to write objects down (`output`).
- note, warning: a line on stderr for people at a terminal; one for everybody.

`--version` and completion stay cheap because nothing is imported before it is known to be needed.
"""

__version__ = "0.1.0"

# Set by the scripts in completions/, which ask through it.
COMPLETE_VARIABLE = "_GATECTL_COMPLETE"

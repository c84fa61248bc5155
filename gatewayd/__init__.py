"""gatewayd: an API gateway with keys, plans, limits, exact usage and bills.

The words of this code base, from the bottom up:

- problem, refusal: an entry of the catalogue in `errors`; a guard's answer that names one.
- record, segment: one line of the usage journal, fixed size; one file of such lines, written by one worker (`records`).
- message: what control and a worker say to each other (`channel`).
- snapshot: the immutable compiled configuration that a worker serves from (`policy.snapshot`).
- lease: tokens of a key's limits handed to a worker before it spends them (`policy.leases`).
- exchange: one request and its response on their way through a worker (`proxy.exchange`).
- rollup: usage summed per hour and per dimension, the ground of every bill (`control.tables`).

Imports point one way: words, then policy (pure), then proxy and control beside each other, then supervisor and cli.
"""

__version__ = "0.1.0"

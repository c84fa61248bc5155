"""`python -m gatewayd.proxy`: a worker. A module of its own, since a compiled one cannot be run by name."""

from gatewayd.proxy.worker import main

main()

"""gatewayd from the outside: real processes, real sockets, an upstream that counts."""

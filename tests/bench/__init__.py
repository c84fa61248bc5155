"""`make bench`: what a request costs through gatewayd and through nginx, measured side by side. See `__main__`."""

"""Two small APIs to put behind the gateway: orders and products. `python -m tests.examples orders --port 0`."""

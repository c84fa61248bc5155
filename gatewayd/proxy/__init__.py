"""The data plane: a worker process and the wire on both its sides."""

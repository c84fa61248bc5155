"""What `gatectl usage` is made of, beside its verbs."""

"""What `gatectl key` is made of, beside its verbs."""

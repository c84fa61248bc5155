"""Clients that people use, through a real gateway: what they send is what they send, and not what we think of."""

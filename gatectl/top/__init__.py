"""`gatectl top`: a live screen. `state` and `screen` are pure, `terminal` and `running` touch the world."""

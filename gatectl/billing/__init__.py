"""What the verbs of `gatectl billing` are made of: an invoice on paper in every form, amounts, consent, proof."""

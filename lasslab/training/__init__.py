"""Training: one small objective per thing trained, one loop for all of them."""

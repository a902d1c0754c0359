"""Sounds and the training pairs made of them."""

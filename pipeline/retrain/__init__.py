"""Scheduled retraining: what to train next, whom to tell, and the command."""

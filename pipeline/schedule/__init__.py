"""`byol schedule`: calls `byol retrain` again and again, by a scheduler that exists."""

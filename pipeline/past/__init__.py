"""What earlier runs left: history, lineage, pruning."""

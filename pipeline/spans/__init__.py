"""Spans of data: which have arrived, and what became of them."""

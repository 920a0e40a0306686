"""Use of a pushed encoder: loading, embedding, searching, serving."""

"""What decides whether a model ships: metrics, checks, the verdict, the model card."""

"""The pipeline from CIFAR-10 to a pushed encoder, its presets, its local runner and the command line."""

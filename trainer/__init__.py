"""The two training stages: `trainer.byol` pretrains an encoder, `trainer.probe` measures and exports it."""

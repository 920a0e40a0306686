"""Twenty updates of the tiny model from known weights, with all that is random switched off, in a process of its own.

.venv/bin/python -m tests.unit.trainer.engines OUT.npz; KERAS_BACKEND chooses the engine.
"""

import sys

import numpy as np

from tests.unit.trainer import one_step

UPDATES = 20


def updated():
    """Losses, the encoder's features and every variable after the updates."""
    import keras

    from trainer import representations

    model, images, variables = one_step.build(base_learning_rate=0.2)
    losses = [float(model.train_on_batch(images)) for _ in range(UPDATES)]
    features = representations.embed(model.online_encoder, images)
    values = {f"v{i:03d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    return values | {"losses": losses, "features": features}


def main():
    np.savez(sys.argv[1], **updated())


if __name__ == "__main__":
    main()

"""The settings of the linear probe, as data. No Keras, so that the command line starts fast."""

import dataclasses
import itertools


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """Everything that decides how the frozen encoder is probed (paper, appendix C.1, on cached features).

    Attributes:
        learning_rates: candidates of Adam's peak rate.
        weight_decays: candidates of the kernel's decoupled weight decay. Of all pairs of rate and decay the best one
            on the held-out training images is used.
        crops: how many times the training images are cropped and flipped at random and embedded again; epochs take
            turns between these features and those of the whole images. 0: the whole images alone.
        epochs: passes over the features, for each candidate and for the last fit on every training image.
        batch_size: features in a step.
        seed: of the order of the features, and of the crops.
        knn_neighbors, knn_temperature: of the weighted kNN classifier (Wu et al. 2018); no more neighbors than images a
            class on average.
    """

    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    weight_decays: tuple[float, ...] = (0.0,)
    crops: int = 0
    epochs: int = 30
    batch_size: int = 512
    seed: int = 0
    knn_neighbors: int = 200
    knn_temperature: float = 0.1

    def __post_init__(self) -> None:
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"The probe needs learning rates above 0; received {self.learning_rates}.")
        if not self.weight_decays or min(self.weight_decays) < 0 or self.crops < 0:
            raise ValueError(
                f"The probe's weight decays and crops are at least 0; received {self.weight_decays}, {self.crops}."
            )
        if self.epochs < 1 or self.batch_size < 1 or self.knn_neighbors < 1 or self.knn_temperature <= 0:
            raise ValueError(f"The probe's epochs, batch size and kNN settings are above 0; received {self}.")

    def candidates(self) -> tuple[tuple[float, float], ...]:
        """Every pair of learning rate and weight decay, in the order in which they are tried."""
        return tuple(itertools.product(self.learning_rates, self.weight_decays))

"""Published BYOL recipes as data, each with its source, the time and accuracy to expect, and where this one differs.

A recipe is complete settings for `pretraining.pretrain`. Our own are the presets in `pipeline/config.py`; nothing here
is read by the pipeline. `benchmarks.pretrain --preset NAME` trains either. None of these has been run to its
end here: `docs/results/` tells what was.
"""

import dataclasses

from trainer import architecture
from trainer.architecture import EncoderConfig, LayerConfig
from trainer.byol.config import HeadConfig, OptimizerConfig, PretrainingConfig, ViewConfig

CIFAR10_IMAGES = 50_000
IMAGENET_IMAGES = 1_281_167


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One published training.

    Attributes:
        source: where every number comes from.
        published: the accuracy that its authors report, with the protocol.
        hours: the time that its authors report, or the closest one known, with the device.
        images: of the training split; the warm-up is counted in its steps.
        normalised: whether the encoder's first layer normalises the pixels; else it leaves them in [0, 1].
        encoder, pretraining: the settings.
        differences: what the source does and this code does not, or otherwise.
    """

    source: str
    published: str
    hours: str
    images: int
    encoder: EncoderConfig
    pretraining: PretrainingConfig
    differences: tuple[str, ...]
    normalised: bool = True

    @property
    def total_steps(self) -> int:
        """Updates of the whole training."""
        return self.pretraining.total_steps(self.images)


def _epochs_to_steps(epochs: int, images: int, batch_size: int) -> int:
    return epochs * (images // batch_size)


PAPER = Recipe(
    source="Grill et al. 2020, appendix B and C; google-deepmind/deepmind-research, byol/configs/byol.py (1000 "
    "epochs) and byol/utils/augmentations.py",
    published="74.3% top-1 on ImageNet, ResNet-50, linear evaluation",
    hours="about 8 hours on 512 TPU v3 cores",
    images=IMAGENET_IMAGES,
    encoder=architecture.RESNET18,
    pretraining=PretrainingConfig(
        epochs=1000,
        batch_size=4096,
        base_tau=0.996,
        head=HeadConfig(hidden_dim=4096, output_dim=256),
        optimizer=OptimizerConfig(
            name="lars",
            base_learning_rate=0.2,
            warmup_steps=_epochs_to_steps(10, IMAGENET_IMAGES, 4096),
            weight_decay=1.5e-6,
            eta=1e-3,
        ),
        view_1=ViewConfig(size=224, blur=1.0),
        view_2=ViewConfig(size=224, blur=0.1, solarize=0.2),
    ),
    differences=(
        "The encoder is ResNet-50 with a 7x7 stem and max-pool; here it is the CIFAR ResNet-18.",
        "Brightness is added, not multiplied; contrast is per channel; hue turns in HSV.",
        "The blur's kernel is cut at a tenth of the image.",
    ),
)

SOLO_LEARN_CIFAR10 = Recipe(
    source="vturrisi/solo-learn, scripts/pretrain/cifar/byol.yaml, augmentations/asymmetric.yaml, solo/utils/lars.py",
    published="92.58% on CIFAR-10, ResNet-18, online linear classifier",
    hours="not published; lightly reports 6.7 hours for 800 epochs of BYOL with ResNet-18 on one A6000",
    images=CIFAR10_IMAGES,
    encoder=architecture.RESNET18,
    pretraining=PretrainingConfig(
        epochs=1000,
        batch_size=256,
        base_tau=0.99,
        head=HeadConfig(hidden_dim=4096, output_dim=256),
        optimizer=OptimizerConfig(
            name="lars",
            base_learning_rate=1.0,
            warmup_steps=_epochs_to_steps(10, CIFAR10_IMAGES, 256),
            weight_decay=1e-5,
            eta=0.02,
            clip_trust=True,
        ),
        view_1=ViewConfig(),
        view_2=ViewConfig(solarize=0.2),
        precision="mixed_bfloat16",
    ),
    differences=(
        "Its stem pads by 2, so that feature maps are 34x34: 27% more operations.",
        "float16 with loss scaling; here bfloat16 without.",
        "Its linear classifier trains beside the encoder; here the probe comes afterwards.",
    ),
)

# Keras' defaults.
_GARDER14_LAYERS = LayerConfig(initializer="glorot_uniform", norm_momentum=0.99, norm_epsilon=1e-3)
# Jitter of strength 0.5; one image in four is flipped, one half of the half that may be.
_GARDER14_VIEW = ViewConfig(kind="garder14", flip=0.25, saturation=0.4)

GARDER14 = Recipe(
    source="garder14/byol-tensorflow2 at cd2f29b, pretraining.py, losses.py, augmentation.py, models.py, "
    "linearevaluation.py (`benchmarks/garder14_probe.py`)",
    published="82.03% at 100 epochs, 86.92% at 200 on CIFAR-10, ResNet-18, offline linear, last epoch",
    hours="12 hours on one P100 for 200 epochs",
    images=CIFAR10_IMAGES,
    encoder=dataclasses.replace(architecture.RESNET18, layers=_GARDER14_LAYERS),
    pretraining=PretrainingConfig(
        epochs=200,
        batch_size=512,
        base_tau=0.99,
        head=HeadConfig(hidden_dim=256, output_dim=128, layers=_GARDER14_LAYERS),
        # Adam at 1e-3 for a batch of 512. Its loss is the mean of all terms, half of ours, and its epsilon 1e-7: on a
        # loss twice as large, twice the epsilon makes the same step.
        optimizer=OptimizerConfig(
            name="adamw",
            base_learning_rate=5e-4,
            warmup_steps=0,
            weight_decay=0.0,
            schedule="constant",
            epsilon=2e-7,
        ),
        tau_schedule="constant",
        view_1=_GARDER14_VIEW,
        view_2=_GARDER14_VIEW,
    ),
    normalised=False,
    differences=(
        "It calls one Adam for each network in turn, so its bias correction counts three steps for one.",
        "Its convolutions and the heads' hidden layers have biases, which batch norm cancels.",
        "Its EMA takes batch norm's moments along, which no training step reads.",
    ),
)

RECIPES = {"paper": PAPER, "solo-learn-cifar10": SOLO_LEARN_CIFAR10, "garder14": GARDER14}

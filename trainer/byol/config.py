"""The settings of BYOL pretraining, as data. No Keras, so that the command line starts fast."""

import dataclasses

from trainer.architecture import PLAIN_LAYERS, LayerConfig

VIEWS = ("byol", "garder14")


@dataclasses.dataclass(frozen=True)
class ViewConfig:
    """One view's recipe: each augmentation has its own probability and magnitude (paper, appendix B, table 6).

    Attributes:
        size: height and width of the view in pixels.
        minimum_area: the crop's smallest share of the image's area; the largest is 1.
        maximum_ratio: of width to height; log-uniform between its inverse and it.
        flip: probability of a horizontal flip.
        jitter: probability of the colour jitter.
        brightness, contrast, saturation: largest relative change, factor uniform in [1 - m, 1 + m].
        hue: largest rotation, as a share of the full turn.
        grey: probability of dropping the colour.
        blur: probability of the Gaussian blur.
        blur_sigma: smallest and largest standard deviation in pixels.
        solarize: probability of inverting the values of 0.5 and above.
        kind: "byol" as above; "garder14" as that repository draws its views (`trainer/byol/garder14_views.py`): crops
            of whole pixels, bilinear; added brightness, saturation and hue in HSV, in this order. It has no blur and
            no solarisation, and its crops have no setting.
    """

    size: int = 32
    minimum_area: float = 0.08
    maximum_ratio: float = 4 / 3
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    kind: str = "byol"

    def for_side(self, side: int, base: int) -> "ViewConfig":
        """The same share of images of `side` pixels as it is of images of `base`, in whole multiples of 4 pixels."""
        return dataclasses.replace(self, size=round(self.size * side / base / 4) * 4)

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grey", "blur", "solarize"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is a probability, 0 to 1; received {getattr(self, name)}.")
        for name in ("brightness", "contrast", "saturation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(
                    f"{name} is the largest relative change, 0 to 1; received {getattr(self, name)}."
                )
        if not 0.0 <= self.hue <= 0.5:
            raise ValueError(f"hue is a share of the full turn, 0 to 0.5; received {self.hue}.")
        if not 0.0 < self.minimum_area <= 1.0:
            raise ValueError(f"minimum_area is a share, above 0 and at most 1; received {self.minimum_area}.")
        if self.maximum_ratio < 1.0:
            raise ValueError(f"maximum_ratio is at least 1; received {self.maximum_ratio}.")
        if not 0.0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma is (smallest, largest), above 0; received {self.blur_sigma}.")
        if self.size < 8:
            raise ValueError(f"A view needs at least 8 pixels a side; received size={self.size}.")
        self._check_kind()

    def _check_kind(self) -> None:
        if self.kind not in VIEWS:
            raise ValueError(f"A view's kind is one of {', '.join(VIEWS)}; received {self.kind!r}.")
        if self.kind == "garder14" and (self.blur > 0 or self.solarize > 0):
            raise ValueError(
                f"A view of the kind garder14 has neither blur nor solarisation; received blur={self.blur}, "
                f"solarize={self.solarize}. Give 0 for both."
            )


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Sizes of projector and predictor (paper, section 3.3: 4096 hidden, 256 out).

    Attributes:
        hidden_dim: width of their hidden layer.
        output_dim: length of a projection and of a prediction.
        layers: see its class.
    """

    hidden_dim: int = 4096
    output_dim: int = 256
    layers: LayerConfig = PLAIN_LAYERS

    def __post_init__(self) -> None:
        if min(self.hidden_dim, self.output_dim) < 1:
            raise ValueError(
                f"The head's sizes are at least 1; received {self.hidden_dim} and {self.output_dim}."
            )


# What trains: TensorFlow here, JAX in a process of its own, or JAX where it sees a GPU or a TPU.
ENGINES = ("auto", "tensorflow", "jax")
OPTIMIZERS = ("sgd", "adamw", "lars")
# How learning rate and tau go on: by a cosine to 0 and to 1 (the paper), or as they begin.
SCHEDULES = ("cosine", "constant")
# "auto" is bfloat16 where the device multiplies it faster.
PRECISIONS = ("auto", "float32", "mixed_bfloat16")
# What a pretraining takes over from an earlier one (docs/decisions/0062-warm-start.md).
WARM_STARTS = ("never", "encoder", "full")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer of the online network.

    Attributes:
        name: "sgd" (momentum 0.9), "adamw" or "lars" (momentum 0.9).
        base_learning_rate: for a batch of 256; the peak is `base_learning_rate * batch_size / 256`.
        warmup_steps: updates of linear warm-up.
        weight_decay: of kernels only, as in the reference: batch norm's scale and offset and every bias
            are excluded. For "sgd" and "adamw" it is decoupled: a kernel shrinks by `learning_rate * weight_decay`
            beside its update. For "lars" it is coupled: added to the gradient (docs/decisions/0030-optimizers.md).
        eta: trust coefficient of "lars"; the others ignore it.
        epsilon: of "adamw", beside the root of its second moment; the others ignore it.
        schedule: of the learning rate after its warm-up: "cosine" to 0 at the end, or "constant".
        clip_trust: "lars" only: a layer's rate never exceeds the learning rate (LARC, solo-learn's `clip_lr`).
    """

    name: str = "sgd"
    base_learning_rate: float = 0.12
    warmup_steps: int = 200
    weight_decay: float = 1e-5
    eta: float = 1e-3
    clip_trust: bool = False
    schedule: str = "cosine"
    epsilon: float = 1e-7

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ValueError(f"optimizer.name is one of {', '.join(OPTIMIZERS)}; received {self.name!r}.")
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"optimizer.schedule is one of {', '.join(SCHEDULES)}; received {self.schedule!r}."
            )
        for name in ("eta", "epsilon"):
            if getattr(self, name) <= 0:
                raise ValueError(f"optimizer.{name} is above 0; received {getattr(self, name)}.")
        if self.base_learning_rate <= 0 or self.weight_decay < 0 or self.warmup_steps < 0:
            raise ValueError(f"Learning rate above 0, weight decay and warm-up at least 0; received {self}.")


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
    """Everything that decides what the Pretrainer learns.

    Attributes:
        epochs: passes over the training split; every image is seen in two views each time.
        batch_size: images in a step; what does not fill a batch at the end of an epoch is left out of it.
        base_tau: the target's decay at the first step.
        tau_schedule: of the target's decay: "cosine" to 1 at the end, or "constant".
        seed: of initial weights, order of the images and augmentations.
        head, optimizer, view_1, view_2: see their classes.
        checkpoint_minutes: time between checkpoints; 0 writes one after every epoch.
        checkpoints_kept: the newest so many stay; with 1, a damaged one has none before it to fall back to.
        monitor_images: held-out training images used by the monitors, fewer where these and their bank would take more
            than 256 MB; 0 turns them off.
        monitor_epochs: the monitors measure after every so many epochs, and after the last one.
        precision: of the networks' products: "float32", or "mixed_bfloat16" with variables, batch-norm statistics,
            loss, optimizer and EMA in float32; "auto" is "mixed_bfloat16" on a processor with AVX512-BF16 and on what
            JAX calls a GPU or a TPU, else "float32". What is probed and pushed is float32 in any case.
        steps_per_execution: updates in one call of the compiled step; changes no result. Progress, checkpoints and
            the watch for NaN come once a call. On GPUs and TPUs with JAX they are one program: an epoch's updates,
            97 for CIFAR-10 in batches of 512, make it the whole epoch.
        engine: "tensorflow", for CPUs; "jax", for GPUs and TPUs, in a process of its own
            (docs/decisions/0034-engines.md); "auto" is "jax" where JAX sees a GPU or a TPU, else "tensorflow".
        devices: that each batch is divided among, by JAX's own data parallelism; 0 takes every accelerator. TensorFlow
            trains on one; asked for several it is refused before the run. Batch norm, loss and augmentations are
            those of the whole batch. With several processes (docs/decisions/0036-several-processes.md) it is 0.
    """

    epochs: int = 1
    batch_size: int = 128
    base_tau: float = 0.97
    seed: int = 0
    head: HeadConfig = HeadConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    view_1: ViewConfig = ViewConfig()
    view_2: ViewConfig = ViewConfig()
    checkpoint_minutes: float = 5.0
    checkpoints_kept: int = 2
    monitor_images: int = 2000
    monitor_epochs: int = 1
    precision: str = "float32"
    steps_per_execution: int = 1
    devices: int = 1
    engine: str = "auto"
    tau_schedule: str = "cosine"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2:
            raise ValueError(
                f"Pretraining needs at least 1 epoch and batches of 2, for batch norm; received epochs="
                f"{self.epochs}, batch_size={self.batch_size}."
            )
        if not 0.0 <= self.base_tau <= 1.0:
            raise ValueError(f"base_tau is 0 to 1; received {self.base_tau}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}; received {self.precision!r}.")
        if self.tau_schedule not in SCHEDULES:
            raise ValueError(
                f"tau_schedule is one of {', '.join(SCHEDULES)}; received {self.tau_schedule!r}."
            )
        if self.monitor_epochs < 1:
            raise ValueError(
                f"monitor_epochs is at least 1; received {self.monitor_epochs}. monitor_images=0 turns them off."
            )
        if self.engine not in ENGINES:
            raise ValueError(f"engine is one of {', '.join(ENGINES)}; received {self.engine!r}.")
        if self.engine == "tensorflow" and self.devices > 1:
            raise ValueError(
                f"pretraining.devices={self.devices} needs pretraining.engine=jax: TensorFlow trains on one device "
                "here. Give that engine, or pretraining.devices=1."
            )
        if self.checkpoint_minutes < 0 or self.monitor_images < 0:
            raise ValueError(
                f"Minutes and image counts are at least 0; received checkpoint_minutes={self.checkpoint_minutes}, "
                f"monitor_images={self.monitor_images}."
            )
        if self.checkpoints_kept < 1 or self.steps_per_execution < 1 or self.devices < 0:
            raise ValueError(
                f"checkpoints_kept and steps_per_execution are at least 1, devices at least 0; received "
                f"{self.checkpoints_kept}, {self.steps_per_execution} and {self.devices}."
            )

    def total_steps(self, images: int) -> int:
        """Updates of the whole training on `images` images; the horizon of both schedules.

        Raises:
            ValueError: when an epoch holds no batch, or when the warm-up would fill the training.
        """
        epoch_steps = images // self.batch_size
        if epoch_steps == 0:
            raise ValueError(
                f"Pretraining needs at least one batch of {self.batch_size} images; received {images} "
                "training images. Give more, or lower pretraining.batch_size."
            )
        if self.optimizer.warmup_steps >= epoch_steps * self.epochs:
            raise ValueError(
                f"Pretraining of {epoch_steps * self.epochs} steps ends inside its warm-up of "
                f"{self.optimizer.warmup_steps}. Raise pretraining.epochs or lower "
                "pretraining.optimizer.warmup_steps."
            )
        return epoch_steps * self.epochs

"""What an encoder looks like, as data; `networks` builds it. No Keras, so that the command line starts fast."""

import dataclasses

BASE_SIDE = 32  # pixels: what the encoders below are made for, CIFAR-10's
STEM_STRIDES = (1, 2, 4, 8, 16, 32, 64)
_NARROWEST_STEM = 8  # channels
INITIALIZERS = ("he_normal", "glorot_uniform")


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """What convolutions and dense layers start from, and batch norm.

    Attributes:
        initializer: of the kernels: "he_normal" or "glorot_uniform".
        norm_momentum: share of batch norm's moving moments that stays at each update. 0.9 as in the reference (DeepMind
            byol/configs, solo-learn); Keras' own default is 0.99.
        norm_epsilon: added to the variance; Keras' own default is 1e-3.
    """

    initializer: str = "he_normal"
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.initializer not in INITIALIZERS:
            raise ValueError(
                f"layers.initializer is one of {', '.join(INITIALIZERS)}; received {self.initializer!r}."
            )
        if not 0.0 <= self.norm_momentum < 1.0 or self.norm_epsilon <= 0.0:
            raise ValueError(
                f"layers.norm_momentum is at least 0 and below 1, norm_epsilon above 0; received {self}."
            )


PLAIN_LAYERS = LayerConfig()


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A ResNet v1 of basic blocks for small images (He et al. 2015, section 4.2; 3x3 stem without max-pool).

    Attributes:
        widths: channels of each stage; the last one is the representation's dimension.
        blocks: basic blocks in each stage, as many entries as `widths`.
        stem_stride: by how much the stem reduces each side, a power of two: 1 for the CIFAR ResNets, 2 for a quarter of
            the cost. 4 and more take several 3x3 convolutions of stride 2, with half the channels of the next one.
        layers: see its class.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    stem_stride: int = 1
    layers: LayerConfig = PLAIN_LAYERS

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(
                f"An encoder needs as many block counts as widths, at least one; received widths="
                f"{self.widths}, blocks={self.blocks}. Give one block count for each stage."
            )
        if min(self.widths + self.blocks) < 1:
            raise ValueError(f"Widths and blocks are at least 1; received {self.widths} and {self.blocks}.")
        if self.stem_stride not in STEM_STRIDES:
            known = ", ".join(map(str, STEM_STRIDES))
            raise ValueError(f"stem_stride must be one of {known}; received {self.stem_stride}.")

    @property
    def stem(self) -> tuple[tuple[int, int], ...]:
        """Channels and stride of each 3x3 convolution of the stem, in order; the last one has `widths[0]` channels."""
        if self.stem_stride <= 2:
            return ((self.widths[0], self.stem_stride),)
        halvings = self.stem_stride.bit_length() - 1
        narrow = min(self.widths[0], _NARROWEST_STEM)
        return tuple((max(narrow, self.widths[0] >> later), 2) for later in reversed(range(halvings)))

    def for_side(self, side: int) -> "EncoderConfig":
        """The encoder for images whose shorter side has `side` pixels: the stem halves once more each time that this is
        twice `BASE_SIDE`, so that the stages have as much to do as for 32 pixels, and up to four times as much.
        """
        halvings = max(0, (side // BASE_SIDE).bit_length() - 1)
        return dataclasses.replace(self, stem_stride=min(self.stem_stride << halvings, STEM_STRIDES[-1]))


RESNET18 = EncoderConfig(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
# What a linear probe reads is 512 numbers, which at 2x2 pixels cost little.
RESNET10_NARROW = EncoderConfig(widths=(48, 96, 192, 512), blocks=(1, 1, 1, 1), stem_stride=2)
RESNET10 = EncoderConfig(widths=(64, 128, 256, 512), blocks=(1, 1, 1, 1), stem_stride=2)
RESNET8_TINY = EncoderConfig(widths=(32, 64, 128), blocks=(1, 1, 1), stem_stride=2)

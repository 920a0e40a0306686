"""What an encoder looks like, as data; `networks` builds it. No Keras, so that the command line starts fast."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """A ResNet v1 of basic blocks for 32x32 images (He et al. 2015, section 4.2; 3x3 stem without max-pool).

    Attributes:
        widths: channels of each stage; the last one is the representation's dimension.
        blocks: basic blocks in each stage, as many entries as `widths`.
        stem_stride: stride of the 3x3 stem: 1 for the CIFAR ResNets, 2 for a quarter of the cost.
    """

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    stem_stride: int = 1

    def __post_init__(self) -> None:
        if not self.widths or len(self.widths) != len(self.blocks):
            raise ValueError(
                f"An encoder needs as many block counts as widths, at least one; received widths="
                f"{self.widths}, blocks={self.blocks}. Give one block count for each stage."
            )
        if min(self.widths + self.blocks) < 1:
            raise ValueError(f"Widths and blocks are at least 1; received {self.widths} and {self.blocks}.")
        if self.stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2; received {self.stem_stride}.")


RESNET18 = EncoderConfig(widths=(64, 128, 256, 512), blocks=(2, 2, 2, 2))
# What a linear probe reads is 512 numbers, which at 2x2 pixels cost little.
RESNET10_NARROW = EncoderConfig(widths=(48, 96, 192, 512), blocks=(1, 1, 1, 1), stem_stride=2)
RESNET10 = EncoderConfig(widths=(64, 128, 256, 512), blocks=(1, 1, 1, 1), stem_stride=2)
RESNET8_TINY = EncoderConfig(widths=(32, 64, 128), blocks=(1, 1, 1), stem_stride=2)

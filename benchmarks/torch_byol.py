"""BYOL's step in plain PyTorch, for an interpreter of its own: what `benchmarks.train` is compared with, and the
independent implementation that a test compares one training step with. It imports nothing of this project.

As a program it reads one JSON object a line and answers each with one:

    {"do": "build", "network": {...}, "batch": 128, "size": 24, "precision": "float32"}    -> {"torch": "2.13.0", ...}
    {"do": "time", "contender": "eager", "steps": 10}                                      -> {"seconds": [1.23, 2.4]}
"""

import contextlib
import copy
import importlib
import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional

CONTENDERS = {
    "torch eager": {"compiled": False, "memory_format": torch.contiguous_format},
    "torch eager, channels last": {"compiled": False, "memory_format": torch.channels_last},
    "torch.compile": {"compiled": True, "memory_format": torch.contiguous_format},
    "torch.compile, channels last": {"compiled": True, "memory_format": torch.channels_last},
}
LIGHTLY = "lightly's BYOL modules"


class Convolution(nn.Conv2d):
    """3x3 or 1x1 without bias, padded as TensorFlow's "same": the odd pixel at the bottom and the right."""

    def __init__(self, inputs, outputs, size, stride):
        super().__init__(inputs, outputs, size, stride, bias=False)
        self.odd = size == 3 and stride == 2
        self.padding = (1, 1) if size == 3 and not self.odd else (0, 0)

    def forward(self, x):
        """[b, inputs, h, w] -> [b, outputs, h / stride, w / stride]."""
        return super().forward(functional.pad(x, (0, 1, 0, 1)) if self.odd else x)


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, inputs, width, stride):
        super().__init__()
        self.shortcut = None
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(Convolution(inputs, width, 1, stride), nn.BatchNorm2d(width))
        self.conv1, self.norm1 = Convolution(inputs, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = Convolution(width, width, 3, 1), nn.BatchNorm2d(width)

    def forward(self, x):
        """[b, inputs, h, w] -> [b, width, h / stride, w / stride]."""
        shortcut = x if self.shortcut is None else self.shortcut(x)
        x = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(x)) + shortcut)


class Encoder(nn.Module):
    """The ResNet of `trainer.architecture.EncoderConfig`: [b, 3, h, w] in [0, 1] -> [b, widths[-1]]."""

    def __init__(self, widths, blocks, stem_stride, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        if stem_stride > 2:
            raise ValueError(
                f"The peer has a stem of one convolution, of stride 1 or 2; received {stem_stride}."
            )
        self.stem = nn.Sequential(
            Convolution(3, widths[0], 3, stem_stride), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages, inputs = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for block in range(count):
                stages.append(Block(inputs, width, 2 if stage > 0 and block == 0 else 1))
                inputs = width
        self.stages = nn.Sequential(*stages)

    def forward(self, x):
        """Normalises, convolves and averages over the pixels."""
        return self.stages(self.stem((x - self.mean) / self.std)).mean(dim=(2, 3))


def head(inputs, hidden, outputs):
    """Projector or predictor: [b, inputs] -> [b, outputs]."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class BYOL(nn.Module):
    """Online and target network; its value is the loss of two views, a scalar in [0, 8].

    Args:
        network: `widths`, `blocks`, `stem_stride`, `hidden_dim`, `output_dim`, `mean` and `std`.
    """

    def __init__(self, network):
        super().__init__()
        encoder = {name: network[name] for name in ("widths", "blocks", "stem_stride", "mean", "std")}
        out, hidden = network["output_dim"], network["hidden_dim"]
        self.encoder, self.projector = Encoder(**encoder), head(network["widths"][-1], hidden, out)
        self.predictor = head(out, hidden, out)
        self.target_encoder, self.target_projector = (
            copy.deepcopy(self.encoder),
            copy.deepcopy(self.projector),
        )
        for parameter in self.target_parameters():
            parameter.requires_grad_(False)

    def online_parameters(self):
        """What the optimizer trains."""
        return [p for part in (self.encoder, self.projector, self.predictor) for p in part.parameters()]

    def target_parameters(self):
        """What follows the encoder's and projector's parameters, in the same order."""
        return [p for part in (self.target_encoder, self.target_projector) for p in part.parameters()]

    def forward(self, view_1, view_2):
        """The loss of two views [b, 3, h, w] in [0, 1], averaged over the batch."""
        online = [self.predictor(self.projector(self.encoder(view))) for view in (view_1, view_2)]
        with torch.no_grad():
            target = [self.target_projector(self.target_encoder(view)) for view in (view_1, view_2)]
        first = functional.cosine_similarity(online[0].float(), target[1].float())
        second = functional.cosine_similarity(online[1].float(), target[0].float())
        return (4 - 2 * first - 2 * second).mean()

    @torch.no_grad()
    def update_target(self, tau):
        """target = tau * target + (1 - tau) * online, on the parameters alone."""
        online = [p for part in (self.encoder, self.projector) for p in part.parameters()]
        torch._foreach_lerp_(self.target_parameters(), online, 1 - tau)


def lightly_byol(network):
    """The same encoder under lightly's own heads, target copy, loss and EMA, as its examples join them."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    class Lightly(BYOL):
        def __init__(self):
            super().__init__(network)
            sizes = network["hidden_dim"], network["output_dim"]
            self.projector = BYOLProjectionHead(network["widths"][-1], *sizes)
            self.predictor = BYOLPredictionHead(network["output_dim"], *sizes)
            self.target_projector = copy.deepcopy(self.projector)
            deactivate_requires_grad(self.target_projector)
            self.criterion = NegativeCosineSimilarity()

        def forward(self, view_1, view_2):
            online = [self.predictor(self.projector(self.encoder(view))) for view in (view_1, view_2)]
            with torch.no_grad():
                target = [self.target_projector(self.target_encoder(view)) for view in (view_1, view_2)]
            return 0.5 * (self.criterion(online[0], target[1]) + self.criterion(online[1], target[0]))

        def update_target(self, tau):
            update_momentum(self.encoder, self.target_encoder, m=tau)
            update_momentum(self.projector, self.target_projector, m=tau)

    return Lightly()


class Timed:
    """One contender with its views already in memory: forward, backward, SGD with momentum, EMA.

    Args:
        contender: its name.
        network, batch, size: what `BYOL` takes; images in a step; pixels a side.
        precision: "float32", or "mixed_bfloat16" by autocast.
    """

    def __init__(self, contender, network, batch, size, precision):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        style = CONTENDERS.get(contender, CONTENDERS["torch eager"])
        torch.manual_seed(0)
        model = lightly_byol(network) if contender == LIGHTLY else BYOL(network)
        self.model = model.to(self.device, memory_format=style["memory_format"])
        self.loss = torch.compile(self.model) if style["compiled"] else self.model
        self.optimizer = torch.optim.SGD(
            self.model.online_parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-5
        )
        views = torch.rand(2, batch, 3, size, size, device=self.device)
        self.views = [view.to(memory_format=style["memory_format"]) for view in views]
        self.low = precision == "mixed_bfloat16"

    def step(self):
        """One update."""
        precision = torch.autocast(self.device.type, torch.bfloat16) if self.low else contextlib.nullcontext()
        with precision:
            loss = self.loss(*self.views)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.model.update_target(0.99)
        return loss

    def seconds(self, steps):
        """Wall time and CPU time of `steps` updates, their end included."""
        started, spent = time.perf_counter(), time.process_time()
        for _ in range(steps):
            loss = self.step()
        loss.item()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started, time.process_time() - spent


def missing():
    """Why a contender cannot run here, by its name: lightly needs a torchvision made for this torch."""
    try:
        importlib.import_module("lightly.loss")
        importlib.import_module("lightly.models.modules")
    except (ImportError, RuntimeError) as error:
        return {LIGHTLY: f"{type(error).__name__}: {error}"}
    return {}


def main():
    """Answers one request a line until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    built, made = {}, {}
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("do") == "build":
            built = request
            answer = {
                "torch": torch.__version__,
                "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                "threads": torch.get_num_threads(),
                "contenders": [name for name in (*CONTENDERS, LIGHTLY) if name not in missing()],
                "missing": missing(),
            }
        else:
            name = request["contender"]
            if name not in made:
                made[name] = Timed(name, **built)
            answer = {"seconds": made[name].seconds(request["steps"])}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

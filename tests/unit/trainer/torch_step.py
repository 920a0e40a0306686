"""One BYOL update in PyTorch from given weights and views, in an interpreter that has torch.

python tests/unit/trainer/torch_step.py IN.npz OUT.npz; both hold arrays named network/layer/variable, as Keras names
and shapes them. It imports nothing of the project but `benchmarks.torch_byol`, which imports nothing of it at all.
"""

import json
import pathlib
import sys

import numpy as np
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[3]))

from benchmarks import torch_byol

MOMENTUM = 0.9


def layers(model):
    """(name in the file, torch layer) for each layer with weights."""
    for network, encoder in (("online_encoder", model.encoder), ("target_encoder", model.target_encoder)):
        yield f"{network}/stem", encoder.stem[0]
        yield f"{network}/stem_norm", encoder.stem[1]
        for i, block in enumerate(encoder.stages):
            name = f"{network}/stage{i + 1}_block1"  # one block a stage
            for part in ("conv1", "norm1", "conv2", "norm2"):
                yield f"{name}_{part}", getattr(block, part)
            if block.shortcut is not None:
                yield f"{name}_shortcut", block.shortcut[0]
                yield f"{name}_shortcut_norm", block.shortcut[1]
    heads = {
        "online_projector": model.projector,
        "predictor": model.predictor,
        "target_projector": model.target_projector,
    }
    for network, head in heads.items():
        parts = {"hidden": head[0], "norm": head[1], "output": head[3]}
        yield from ((f"{network}/{part}", layer) for part, layer in parts.items())


def tensors(model):
    """(name in the file, tensor) for each variable."""
    names = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    for name, layer in layers(model):
        is_norm = isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)
        for own in ("weight", "bias", *(("running_mean", "running_var") if is_norm else ())):
            if getattr(layer, own) is not None:
                plain = {"weight": "kernel", "bias": "bias"}
                yield f"{name}/{names[own] if is_norm else plain[own]}", getattr(layer, own)


def to_keras(array):
    """Torch's axes into Keras': OIHW -> HWIO, [out, in] -> [in, out]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def to_torch(array):
    """The other way."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def biased(layer, tensor, old, samples):
    """torch adds n / (n - 1) times the batch's variance to its running one, the reference the variance itself."""
    kept = 0.9**2  # two views, one after the other
    return kept * old + (tensor - kept * old) * (samples - 1) / samples


def lars(parameters, rate, decay, eta):
    """The first update of DeepMind's LARS: the momentum is still empty."""
    for p in parameters:
        g = p.grad
        if p.ndim > 1:
            g = g + decay * p
            g = g * eta * p.norm() / g.norm()
        p.sub_(rate * g)


def update(parameters, settings):
    """One step of the optimizer named, with decoupled decay of what has two axes or more."""
    rate, decay = settings["rate"], settings["decay"]
    kernels = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    if settings["optimizer"] == "lars":
        with torch.no_grad():
            lars(parameters, rate, decay, settings["eta"])
    elif settings["optimizer"] == "sgd":
        with torch.no_grad():
            for p in kernels:
                p.mul_(1 - rate * decay)
        torch.optim.SGD(parameters, rate, momentum=MOMENTUM).step()
    else:
        # Keras adds epsilon to the root before its bias correction, torch after.
        groups = [{"params": kernels, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        torch.optim.AdamW(groups, rate, eps=1e-7 / np.sqrt(1 - 0.999)).step()


def main():
    given = dict(np.load(sys.argv[1]))
    settings = json.loads(str(given["settings"]))
    torch.set_default_dtype(torch.float64)
    model = torch_byol.BYOL(settings["network"])
    old = {}
    with torch.no_grad():
        for name, tensor in tensors(model):
            old[name] = torch.from_numpy(to_torch(given[name]).astype(np.float64))
            tensor.copy_(old[name])
    samples = {}
    for name, layer in layers(model):
        layer.register_forward_hook(
            lambda _, inputs, out, name=name: samples.update({name: out.numel() // out.shape[1]})
        )
    views = [torch.from_numpy(given[f"view_{i}"].astype(np.float64)).permute(0, 3, 1, 2) for i in (1, 2)]
    loss = model(*views)
    loss.backward()
    out = {"loss": loss.item()}
    for name, tensor in tensors(model):
        if tensor.grad is not None:
            out[f"gradient/{name}"] = to_keras(tensor.grad.numpy())
    update(model.online_parameters(), settings)
    model.update_target(settings["tau"])
    for name, tensor in tensors(model):
        value = tensor.detach()
        if name.endswith("moving_variance"):
            value = biased(name, value, old[name], samples[name.rpartition("/")[0]])
        out[name] = to_keras(value.numpy())
    np.savez(sys.argv[2], **out)


if __name__ == "__main__":
    main()

"""Golden files of the feature networks: PyTorch's networks with weights that anyone can make.

    pip install -r tests/golden/requirements.txt && python tests/golden/make_features.py

runs torchvision, pytorch-fid and lpips on seeded images with seeded weights (nothing is
downloaded), and writes features.npz beside this file: the names and shapes of the state dicts, and
64 numbers of each layer's output. The tests make the same weights and images with numpy alone.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("features.npz")
# Height and width of the two images: small, but every layer has something to do.
SIZES = {"alexnet": (71, 64), "inception_fid": (91, 75), "squeezenet1_1": (64, 71)}
SIZES |= {"vgg16": (32, 45), "vgg19": (32, 32)}
# Our names of outputs, and how many of torchvision's `features` come before them.
OUTPUTS = {
    "alexnet": {"relu1": 2, "pool1": 3, "relu2": 5, "relu5": 12, "pool5": 13},
    "squeezenet1_1": {"relu1": 2, "pool1": 3, "fire3": 5, "pool3": 6, "fire5": 8, "fire9": 13},
    "vgg16": {"relu1_2": 4, "relu2_2": 9, "relu3_3": 16, "relu4_3": 23, "relu5_3": 30, "pool5": 31},
    "vgg19": {"relu3_4": 18, "relu5_4": 36, "pool5": 37},
}
LPIPS = {"alexnet": "alex", "squeezenet": "squeeze", "vgg16": "vgg"}  # ours: theirs


def seeded(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of one entry of a state dict: they keep activations in size, none is special."""
    uniform = np.random.default_rng(zlib.crc32(key.encode())).random(shape, np.float32)
    if key.endswith("running_var") or key.endswith("bn.weight") or key.startswith("lin"):
        return 0.5 + uniform
    if len(shape) > 1:  # He's variance of 2 / fan-in
        return (2 * uniform - 1) * np.float32(math.sqrt(6 / math.prod(shape[1:])))
    return 0.2 * uniform - 0.1


def images(name: str, n: int = 2) -> np.ndarray:
    """float32 [n, h, w, 3] in [-1, 1]."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return 2 * rng.random((n, *SIZES[name], 3), np.float32) - 1


def some(name: str, values: np.ndarray) -> np.ndarray:
    """64 numbers of an array [n, ...], channels last, from places that depend on the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.asarray(values).reshape(-1)[rng.integers(values.size, size=64)]


def main() -> None:
    from unittest import mock

    import lpips
    import pytorch_fid.inception
    import torch
    import torchvision

    torch.manual_seed(0)
    golden, shapes = {}, {}

    def set_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        state = {
            key: torch.from_numpy(seeded(key, tuple(value.shape)))
            for key, value in module.state_dict().items()
            if value.is_floating_point()
        }
        module.load_state_dict(state, strict=False)  # but for num_batches_tracked
        module.eval()
        return state

    def record(name: str, output: str, value: torch.Tensor) -> None:
        last = value.movedim(1, -1).numpy()
        golden[f"{name}/{output}"] = some(f"{name}/{output}", last)

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(images(name)).movedim(-1, 1)

    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    states = {}
    for name, outputs in OUTPUTS.items():
        net = getattr(torchvision.models, name)(weights=None)
        states[name] = set_weights(net)
        # VGG's and AlexNet's dense layers are large and not run here.
        own = {k: v for k, v in states[name].items() if name == "squeezenet1_1" or "fea" in k}
        shapes[name] = {key: tuple(value.shape) for key, value in own.items()}
        x = ((tensor(name) + 1) / 2 - mean) / std
        for output, layers in outputs.items():
            record(name, output, net.features[:layers](x))
        if name == "squeezenet1_1":
            record(name, "logits", net(x))

    name = "inception_fid"
    with (
        mock.patch.object(pytorch_fid.inception, "load_state_dict_from_url"),
        mock.patch.object(torch.nn.Module, "load_state_dict"),
    ):
        net = pytorch_fid.inception.fid_inception_v3()
        with mock.patch.object(pytorch_fid.inception, "fid_inception_v3", return_value=net):
            blocks = pytorch_fid.inception.InceptionV3([0, 1, 2, 3], resize_input=False)
    shapes[name] = {key: tuple(value.shape) for key, value in set_weights(net).items()}
    layers = ("maxpool1", "maxpool2", "Mixed_6e", "pool3")
    for output, value in zip(layers, blocks((tensor(name) + 1) / 2), strict=True):
        record(name, output, value[:, :, 0, 0] if output == "pool3" else value)
    record(name, "logits", net.fc(value[:, :, 0, 0]))
    for size in ((28, 28), (320, 311)):
        grid = torch.from_numpy(seeded(f"{size}", (1, 3, *size)))
        resized = torch.nn.functional.interpolate(
            grid, size=(299, 299), mode="bilinear", align_corners=False
        )
        record("interpolate", f"{size[0]}x{size[1]}", resized)

    for ours, theirs in LPIPS.items():
        backbone = "squeezenet1_1" if ours == "squeezenet" else ours
        metric = lpips.LPIPS(net=theirs, pretrained=False, pnet_rand=True, verbose=False)
        heads = {key: tuple(v.shape) for key, v in metric.state_dict().items() if key[:4] != "lins"}
        heads = {key: shape for key, shape in heads.items() if key.startswith("lin")}
        shapes[f"lpips_{ours}"] = heads
        heads = {key: torch.from_numpy(seeded(key, shape)) for key, shape in heads.items()}
        parts = {
            key: states[backbone][f"features.{key.split('.', 2)[2]}"]
            for key in metric.state_dict()
            if key.startswith("net.")
        }
        metric.load_state_dict(heads | parts, strict=False)
        metric.eval()
        a, b = tensor(backbone)
        golden[f"lpips_{ours}"] = metric(a[None], b[None]).numpy().reshape(())
    np.savez_compressed(FILE, shapes=np.array(json.dumps(shapes)), **golden)
    print(FILE, FILE.stat().st_size, "bytes")


if __name__ == "__main__":
    import torch

    with torch.no_grad():
        main()

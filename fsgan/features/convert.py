"""From the files that the authors published to ours: python -m fsgan.features.convert NAME FILE

    python -m fsgan.features.convert inception_fid pt_inception-2015-12-05-6726825d.pth
    python -m fsgan.features.convert vgg16 my_vgg.h5 --output my_vgg16.npz

writes NAME.npz into the folder of weights. There, only what comes from the published file goes by
that name; anything else of the same architecture needs --output and is then loaded by its path.

Files are state dicts of PyTorch (torchvision's VGG, AlexNet and SqueezeNet 1.1, pytorch-fid's
Inception, the heads of LPIPS) and VGG in HDF5 by Keras. Keras's InceptionV3 is not the one of FID:
it has other weights and other classes, so it is not converted.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fsgan import plugins
from fsgan.features import alexnet, squeezenet, vgg, weights
from fsgan.features.weights import Arrays

# Of ImageNet, RGB 0..255.
TORCHVISION = {
    "input/mean": 255 * np.array([0.485, 0.456, 0.406], np.float32),
    "input/std": 255 * np.array([0.229, 0.224, 0.225], np.float32),
}
CAFFE = {
    "input/mean": np.array([123.68, 116.779, 103.939], np.float32),
    "input/std": np.ones(3, np.float32),
}


def from_vgg(state: Arrays, depth: int) -> Arrays:
    """torchvision's vgg16 or vgg19: features.N are convolutions in order, classifier.N dense."""
    arrays = dict(TORCHVISION)
    for name, index in zip(_vgg_convs(depth), _indices(state, "features"), strict=True):
        arrays |= _conv(state, f"features.{index}", name)
    for name, index in zip(("fc6", "fc7", "fc8"), _indices(state, "classifier"), strict=False):
        kernel = state[f"classifier.{index}.weight"]  # [out, in], fc6's in being c * 7 * 7
        if name == "fc6":
            kernel = _rows_last(kernel, 512)
        arrays[f"{name}/kernel"] = kernel.T
        arrays[f"{name}/bias"] = state[f"classifier.{index}.bias"]
    return arrays


def from_alexnet(state: Arrays) -> Arrays:
    """torchvision's alexnet, its convolutions."""
    arrays = dict(TORCHVISION)
    indices = _indices(state, "features")
    for i, (index, _) in enumerate(zip(indices, alexnet.CONVS, strict=True), 1):
        arrays |= _conv(state, f"features.{index}", f"conv{i}")
    return arrays


def from_squeezenet(state: Arrays) -> Arrays:
    """torchvision's squeezenet1_1."""
    first, *fires = _indices(state, "features")
    arrays = TORCHVISION | _conv(state, f"features.{first}", "conv1")
    for fire, index in zip(squeezenet.SQUEEZE, fires, strict=True):
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            key = part.replace("squeeze1x1", "squeeze")
            arrays |= _conv(state, f"features.{index}.{key}", f"fire{fire}/{part}")
    return arrays | _conv(state, "classifier.1", "conv10")


def from_inception(state: Arrays) -> Arrays:
    """pytorch-fid's pt_inception: convolutions without bias, each with a BatchNorm to fold in."""
    arrays = {"fc/kernel": state["fc.weight"].T, "fc/bias": state["fc.bias"]}
    for key in state:
        if not key.endswith(".conv.weight") or key.startswith("AuxLogits"):
            continue
        layer = key.removesuffix(".conv.weight")
        mean, var, gain, shift = (
            state[f"{layer}.bn.{part}"].astype(np.float64)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        gain = gain / np.sqrt(var + 1e-3)
        name = layer.replace(".", "/")
        arrays[f"{name}/kernel"] = _hwio(state[key]) * gain
        arrays[f"{name}/bias"] = shift - mean * gain
    return arrays


def from_lpips(state: Arrays) -> Arrays:
    """The heads, lin0, lin1, ...: 1x1 convolutions to one channel."""
    heads = {key: re.fullmatch(r"(lin\d+)\.model\.\d+\.weight", key) for key in state}
    return {match[1]: state[key].reshape(-1) for key, match in heads.items() if match}


def from_keras_vgg(layers: dict[str, list[np.ndarray]], depth: int) -> Arrays:
    """Keras's VGG16 or VGG19, [kernel, bias] by layer: block1_conv1, ..., fc1, fc2, predictions.

    The kernels are as ours, but take BGR minus a mean.
    """
    theirs = {f"block{name[4]}_conv{name[6]}": name for name in _vgg_convs(depth)}
    if surplus := {layer for layer in layers if "_conv" in layer} - theirs.keys():
        raise ValueError(f"VGG{depth} has no {min(surplus)}")
    if "fc1" in layers:
        theirs |= {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
    arrays = dict(CAFFE)
    for layer, name in theirs.items():
        arrays[f"{name}/kernel"], arrays[f"{name}/bias"] = layers[layer]
    arrays["conv1_1/kernel"] = arrays["conv1_1/kernel"][:, :, ::-1]
    return arrays


CONVERTERS: dict[str, Callable[[Arrays], Arrays]] = {
    "alexnet": from_alexnet,
    "inception_fid": from_inception,
    "lpips_alexnet": from_lpips,
    "lpips_squeezenet": from_lpips,
    "lpips_vgg16": from_lpips,
    "squeezenet1_1": from_squeezenet,
    "vgg16": functools.partial(from_vgg, depth=16),
    "vgg19": functools.partial(from_vgg, depth=19),
}


def _vgg_convs(depth: int) -> list[str]:
    """conv1_1, conv1_2, conv2_1, ..."""
    return [f"conv{b}_{i}" for b, n in enumerate(vgg.BLOCKS[depth], 1) for i in range(1, n + 1)]


def _indices(state: Arrays, prefix: str) -> list[int]:
    """The N of all keys prefix.N.*, in order."""
    return sorted({int(key.split(".")[1]) for key in state if key.startswith(f"{prefix}.")})


def _hwio(kernel: np.ndarray) -> np.ndarray:
    """PyTorch's [out, in, h, w] -> [h, w, in, out]."""
    return kernel.transpose(2, 3, 1, 0)


def _conv(state: Arrays, key: str, name: str) -> Arrays:
    return {f"{name}/kernel": _hwio(state[f"{key}.weight"]), f"{name}/bias": state[f"{key}.bias"]}


def _rows_last(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Dense weights [out, c * h * w] for maps flattened channels first -> [out, h * w * c]."""
    return kernel.reshape(len(kernel), channels, -1).swapaxes(1, 2).reshape(len(kernel), -1)


def read_torch(file: Path) -> Arrays:
    """The state dict of a .pth file as numpy arrays."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"{file} is of PyTorch: pip install torch to convert it") from error
    state = torch.load(file, map_location="cpu", weights_only=True)
    return {key: value.numpy() for key, value in state.items()}


def read_keras(file: Path) -> dict[str, list[np.ndarray]]:
    """The weights of a Keras .h5 file by layer."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{file} is of Keras: pip install h5py to convert it") from error

    def text(name) -> str:
        return name.decode() if isinstance(name, bytes) else name

    with h5py.File(file) as stream:
        root = stream.get("model_weights", stream)
        return {
            text(layer): [
                np.asarray(root[layer][name]) for name in root[layer].attrs["weight_names"]
            ]
            for layer in root.attrs["layer_names"]
        }


def convert(name: str, file: Path, output: Path | None = None) -> Path:
    """Write the .npz file of the weights `name`, into the folder of weights without `output`.

    Returns its path. Raises ValueError if `file` is not the published one and goes to the folder,
    or if it is of another network.
    """
    if name not in CONVERTERS:
        raise plugins.unknown("weights", name, CONVERTERS)
    if not file.is_file():
        raise FileNotFoundError(f"no file {file} to convert")
    found, published = weights.sha256(file), weights.PUBLISHED[name]
    if output is None and not found.startswith(published.sha256):
        raise ValueError(
            f"{file} has SHA-256 {found}, not {published.sha256} ({published.file}): "
            "give --output for weights of your own"
        )
    read, make = read_torch, CONVERTERS[name]
    if file.suffix in (".h5", ".hdf5"):
        if not name.startswith("vgg"):
            raise ValueError(f"of Keras's files only VGG is converted, not {name}")
        read, make = read_keras, functools.partial(from_keras_vgg, depth=int(name[3:]))
    content = read(file)
    try:
        arrays = make(content)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} holds the weights of another network than {name}") from error
    arrays = {key: np.ascontiguousarray(value, np.float32) for key, value in arrays.items()}
    output = output or weights.folder() / f"{name}.npz"
    weights.save(output, {**arrays, "source": np.array(found)})
    return output


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m fsgan.features.convert", description=__doc__)
    parser.add_argument("name", help=", ".join(CONVERTERS))
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, help=".npz file to write")
    given = parser.parse_args(arguments)
    try:
        print(convert(given.name, given.file, given.output))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

"""Any image set of tensorflow-datasets, read without TensorFlow.

Read from TFDS_DATA_DIR (or ~/tensorflow_datasets), where it has to be prepared as array_record;
where it is not, the error says the command that does it.
"""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsgan.data._cache import cached
from fsgan.data._pixels import pixels
from fsgan.images import take_classes
from fsgan.types import Images

CHUNK = 4096  # records in memory at a time, undecoded


def load(
    split: str,
    *,
    size: tuple[int, int],
    channels: int | None,
    seed: int,
    dataset: str = "",
    valid: int | None = None,
) -> Images:
    """The image set `dataset`, such as 'cifar10' or 'imagenet_resized/32x32'.

    'test' is the official test split or else the official validation split, 'valid' the official
    validation split if it is not taken for the test; what does not exist is taken from the end of
    'train' and left out there: `valid` images (a tenth by default), a tenth for the test. Images
    are resized (short side fitted, centre cropped); without a 'label' all are one class, and
    unlabelled images (label -1) of labelled sets are left out.
    """
    del seed  # nothing is drawn
    builder = prepared(dataset)
    return read(builder, _instruction(builder, split, valid), size=size, channels=channels)


def prepared(dataset: str):
    """The builder of a prepared set. ValueError or FileNotFoundError say what is missing."""
    if not dataset:
        raise ValueError("tfds: say which image set, by dataset='cifar10' or as the source's name")
    try:
        import array_record  # noqa: F401
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{_unknown(dataset)}; if it is a set of tensorflow-datasets, reading it needs: "
            "pip install tensorflow-datasets array_record"
        ) from error
    known = tfds.list_builders(with_community_datasets=False)
    try:
        builder = tfds.builder(dataset, data_dir=_data_dir())
    except ImportError as error:  # a builder that needs more than reading does
        raise FileNotFoundError(_prepare(dataset)) from error
    except (ValueError, AssertionError) as error:  # no such set, config or version
        if dataset.split("/")[0].split(":")[0] not in known:
            raise ValueError(_unknown(dataset, known)) from error
        raise ValueError(f"tfds: {' '.join(str(error).split())}") from error
    features = dict(builder.info.features or {})
    if not isinstance(features.get("image"), tfds.features.Image):
        raise ValueError(
            f"{dataset} is no image set: it has no feature 'image' (it has: {', '.join(features)})"
        )
    if not builder.info.splits:
        raise FileNotFoundError(_prepare(dataset))
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        raise FileNotFoundError(
            f"{dataset} is prepared as {builder.info.file_format.value}, which only TensorFlow "
            f"reads: remove {builder.data_path} or set TFDS_DATA_DIR to another folder, and run "
            "again for the command that prepares it as array_record"
        )
    return builder


def unchanged(image):
    return image


def read(
    builder,
    split: str,
    *,
    size: tuple[int, int],
    channels: int | None,
    wanted: Callable[[str], bool] = lambda name: True,
    convert: Callable = unchanged,
) -> Images:
    """The images of a TFDS split such as 'train[:90%]', of the classes that are `wanted`.

    `convert`, a named function, is applied to the Pillow image first.
    """
    own = builder.info.features["image"].shape[-1]
    channels = channels or own or 3
    if channels == 1 and own != 1 and convert is unchanged:
        warnings.warn(f"{builder.name} is in colour: channels=1 makes it grey", stacklevel=3)
    files = sorted(Path(builder.data_path).iterdir())
    stamps = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    made_from = str(builder.data_path), stamps, split, size, channels, convert.__qualname__
    whole = cached(made_from, lambda: decode(builder, split, size, channels, convert))
    classes = [i for i, name in enumerate(whole.classes) if wanted(name)]
    return whole if len(classes) == len(whole.classes) else take_classes(whole, classes)


def decode(builder, split: str, size: tuple[int, int], channels: int, convert: Callable) -> Images:
    """All labelled images of a split, with the classes that it has."""
    import tensorflow_datasets as tfds
    from PIL import Image

    features = dict(builder.info.features)
    label = features.get("label")
    names = tuple(label.names) if isinstance(label, tfds.features.ClassLabel) else (builder.name,)
    skip = {key: tfds.decode.SkipDecoding() for key in features if key != "label"}
    source = builder.as_data_source(split=split, decoders=skip)

    images, labels = [], []
    for begin in range(0, len(source), CHUNK):
        for record in source.__getitems__(range(begin, min(begin + CHUNK, len(source)))):
            y = int(record["label"]) if len(names) > 1 else 0
            if y >= 0:
                image = convert(Image.open(io.BytesIO(record["image"])))
                images.append(pixels(image, size, channels))
                labels.append(y)
    if not images:
        raise ValueError(f"{builder.name}: the split {split!r} has no labelled images")
    kept = np.unique(labels)
    new = np.searchsorted(kept, labels).astype(np.int32)
    return Images(np.stack(images), new, tuple(names[i] for i in kept))


def _instruction(builder, split: str, valid: int | None) -> str:
    """Which part of which official split is our `split`."""
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    if "train" not in sizes:
        raise ValueError(f"{builder.name} has no split 'train' (it has: {', '.join(sizes)})")
    test = next((s for s in ("test", "validation") if s in sizes), None)
    end = sizes["train"] if test else sizes["train"] * 9 // 10
    own_valid = "validation" in sizes and test != "validation" and valid is None
    cut = end if own_valid else end - (end // 10 if valid is None else valid)
    if cut < 1:
        raise ValueError(f"valid={valid} leaves nothing of the {end} training images")
    return {
        "train": f"train[:{cut}]",
        "valid": "validation" if own_valid else f"train[{cut}:{end}]",
        "test": test or f"train[{end}:]",
    }[split]


def _unknown(name: str, others=()) -> str:
    import difflib

    from fsgan import plugins

    package = importlib.import_module("fsgan.data")
    sources = plugins.names(package)
    near = difflib.get_close_matches(name, {*sources, *others}, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ";"
    return (
        f"unknown data source {name!r}{hint} (there are: {', '.join(sources)}, "
        "and the image sets of tensorflow-datasets)"
    )


def _data_dir() -> str | None:
    return os.environ.get("TFDS_DATA_DIR") or None


def _prepare(dataset: str) -> str:
    where = _data_dir()
    data_dir = f", data_dir={where!r}" if where else ""
    return (
        f"{dataset} is not prepared in {where or '~/tensorflow_datasets'}; prepare it once with: "
        "pip install tensorflow tensorflow-datasets array_record importlib_resources && python -c "
        f'"import tensorflow_datasets as tfds; tfds.builder({dataset!r}{data_dir}, '
        "file_format='array_record').download_and_prepare()\""
    )

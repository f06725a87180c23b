"""Show the panel what known failures look like: which score sees which of them.

python main.py --config=configs/calibrate.py:omniglot
python main.py --config=configs/calibrate.py:glyphs

Real images, copies of the support, blurred and repeated images, noise and missing classes take the
place of a generator's. No run is needed. The table goes to calibration.md and calibration.json in
the workdir, by default runs/<name>.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import base
from fsgan import features


def get_config(arg: str = ""):
    chosen, fields = base.words(
        arg,
        data=base.sources(),
        split=["valid", "test"],
        features=features.names(),
        size=["smoke"],
    )
    config = ConfigDict()
    config.phase = "calibrate"
    config.name = base.run_name("calibrate", chosen)  # the default workdir is runs/<name>
    config.data = base.base_config("calibrate", config.name).data
    config.data.name = chosen.get("data", "omniglot")
    config.split = chosen.get("split", "valid")
    config.features = chosen.get("features", "domain")  # of fsgan/features, several with commas
    config.seed = 0  # decides on the images and on the noise
    config.classes = 100  # held-out classes, evenly spaced; 0: all of them
    config.shots = 5  # support images of a class
    config.n = placeholder(int)  # reference images of a class; None: what the smallest one allows
    if config.data.name == "glyphs":
        # Lao, the default, has 8 faces: n=1, with which the scores of variety are missing.
        config.data.valid, config.shots, config.n = "Greek", 3, 2
    if "size" in chosen:
        config.features, config.classes = chosen.get("features", "pixels"), 8
    return base.assign(config, fields)

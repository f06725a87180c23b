"""Make metrics.npz: scores of the PyTorch world's implementations, on features stored with them.

    pip install -r tests/golden/requirements.txt && python tests/golden/make_metrics.py

Small made-up features serve as well as real ones. They are float16, so that the file is small, and
drawn so that the sets differ in mean and in spread.
"""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import prdc
import scipy.sparse
import torch
from sklearn.linear_model import LogisticRegression
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

scipy.sparse.csr = scipy.sparse  # where vendi_score looks for csr_matrix, gone from SciPy
from vendi_score import vendi  # noqa: E402

PACKAGES = ("torch", "torch-fidelity", "prdc", "vendi-score", "scikit-learn")


def features(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Real [96, 16] and fake [80, 16], logits [103, 7], and three overlapping classes."""
    labels = np.repeat(np.arange(3), 40)
    means = 0.8 * rng.normal(size=(3, 8))
    made = {
        "real": 0.5 + rng.normal(size=(96, 16)) / np.sqrt(1 + np.arange(16)),
        "fake": 0.7 + 0.8 * rng.normal(size=(80, 16)) / np.sqrt(1 + np.arange(16)),
        "logits": 3 * rng.normal(size=(103, 7)),
        "train": means[labels] + rng.normal(size=(120, 8)),
        "test": means[labels] + rng.normal(size=(120, 8)),
    }
    return {name: x.astype(np.float16) for name, x in made.items()} | {"labels": labels}


def fid(real: torch.Tensor, fake: torch.Tensor) -> float:
    moments = map(fid_features_to_statistics, (real, fake))
    return fid_statistics_to_metric(*moments, False)["frechet_inception_distance"]


def scores(x: dict[str, np.ndarray]) -> dict[str, object]:
    """What the references say, in float64."""
    arrays = {name: value.astype(np.float64) for name, value in x.items() if name != "labels"}
    real, fake = arrays["real"], arrays["fake"]
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    pair = tensors["real"], tensors["fake"]
    kid = kid_features_to_metric(*(t[:80] for t in pair), kid_subsets=1, kid_subset_size=80)
    isc = isc_features_to_metric(tensors["logits"], splits=10, shuffle=False)
    improved = prc_features_to_metric(pair[1], pair[0], prc_neighborhood=3)
    linear = LogisticRegression(C=1 / (len(arrays["train"]) * 1e-3), tol=1e-10, max_iter=10_000)
    linear.fit(arrays["train"], x["labels"])
    return {
        "fid": fid(*pair),
        "fid_rank_deficient": fid(*(t[:12] for t in pair)),
        "mmd2": kid["kernel_inception_distance_mean"],
        "inception_score": isc["inception_score_mean"],
        "inception_score_std": isc["inception_score_std"],
        "precision_recall": [improved["precision"], improved["recall"]],
        "prdc": list(prdc.compute_prdc(real, fake, nearest_k=5).values()),
        "vendi": vendi.score_X(fake),
        "logistic": np.vstack([linear.coef_.T, linear.intercept_]),
        "accuracy": linear.score(arrays["test"], x["labels"]),
    }


if __name__ == "__main__":
    made = features(np.random.default_rng(0))
    versions = [f"{name} {version(name)}" for name in PACKAGES]
    path = Path(__file__).with_name("metrics.npz")
    np.savez_compressed(path, **made, **scores(made), versions=versions)
    print(path, path.stat().st_size, "bytes")

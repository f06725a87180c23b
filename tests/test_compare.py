"""Evaluations side by side, from hand-made files."""

import copy
import json

import numpy as np
import pytest
from scipy import stats

from fsgan import compare

PARTS = [1.0, 2.0, 3.0, 6.0]


def score(shift: float = 0.0, scale: float = 1.0, floor: float | None = 0.0) -> dict:
    parts = [scale * part + shift for part in PARTS]
    floors = None if floor is None else [floor] * 4
    return {"value": 3 * scale + shift, "parts": parts, "floor": floor, "floor_parts": floors}


def result(run: str = "a", hash: str = "f00", x: dict | None = None, **protocol) -> dict:
    protocol = {"split": "test", "shots": 5, "n": 7, "images": {"A/a": [[1], [2], [3]]}, **protocol}
    found = {"hash": hash, "units": 4, "scores": {"kid": x or score()}}
    return {"run": run, "protocol": protocol, "features": {"domain": found}}


def write(tmp_path, *results: dict) -> list[str]:
    for i, each in enumerate(results):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "evaluation.json").write_text(json.dumps(each))
    return [str(tmp_path / str(i)) for i in range(len(results))]


def test_differences_are_paired():
    """What all classes have in common is known exactly, however much the scores vary."""
    assert compare.difference(score(), score(shift=-1), 4) == (-1, 0)
    delta, half = compare.difference(score(), score(scale=0.5), 4)
    # The jackknife of 4 classes, by Student's t of 3 degrees of freedom.
    deviations = 0.5 * (np.array(PARTS) - 3)
    error = np.sqrt(3 / 4 * np.square(deviations).sum())
    assert (delta, half) == (-1.5, pytest.approx(stats.t.ppf(0.975, 3) * error, rel=1e-3))


def test_quantiles():
    np.testing.assert_allclose(compare.T, stats.t.ppf(0.975, np.arange(1, 10)), atol=6e-4)
    assert len(compare.T) == compare.panel.GROUPS - 1
    for degrees in (1, 2.5, 3.3, 9, 9.5, 20, 1e4):
        exact = stats.t.ppf(0.975, degrees)
        assert exact * 0.999 < compare.quantile(degrees) < exact * (1.005 if degrees > 3 else 1.19)


def test_gap_closed():
    assert compare.gap_closed(score(), score(scale=0.25), 4) == (0.75, 0)
    assert compare.gap_closed(score(floor=None), score(), 4) is None
    assert compare.gap_closed(score(floor=3.0), score(), 4) is None  # nothing to close
    gap, half = compare.gap_closed(score(floor=0.5), score(shift=-0.5), 4)
    ratios = 0.5 / (np.array(PARTS) - 0.5)
    error = np.sqrt(3 / 4 * np.square(ratios - ratios.mean()).sum())
    assert gap == 0.5 / 2.5
    assert half == pytest.approx(3.182 * error)


def test_a_lower_kid_is_no_win_for_a_copier(tmp_path, capsys):
    copier = result("copier", x=score(shift=-1))
    copier["features"]["domain"]["shortcomings"] = ["copying_ratio"]
    compare.main(write(tmp_path, result(), copier))
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "no win" in line)
    assert "KID of [1]" in line
    assert line.endswith("not near the floor: copying_ratio")


def test_the_table(tmp_path, capsys):
    better = result("b", x=score(scale=0.25))
    compare.main(write(tmp_path, result(), better, result("c")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("0: a")
    assert lines[2].endswith("2: c")
    first, second = (line for line in lines if line.startswith("kid"))
    assert first.split() == ["kid", "3", "0.75", "0", "-2.25", "±", "7.7", "0.75", "±", "0"]
    assert second.split()[-3:] == ["0.00", "±", "0"]


def test_a_run_stands_for_its_evaluation(tmp_path):
    (tmp_path / "evaluate").mkdir()
    file = tmp_path / "evaluate" / "evaluation.json"
    file.write_text(json.dumps(result()))
    for path in (file, file.parent, tmp_path):
        assert compare.find(path) == file
    with pytest.raises(FileNotFoundError, match=r"no evaluation.json: python main.py --config=c"):
        compare.find(tmp_path / "nowhere")
    (tmp_path / "evaluate_test").mkdir()
    (tmp_path / "evaluate_test" / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match=r"evaluated more than once: give .*evaluate/.* or .*test"):
        compare.find(tmp_path)
    with pytest.raises(ValueError, match=r"is no evaluation.json of fsgan"):
        compare.load(tmp_path / "evaluate_test")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"shots": 1}, r"differ in shots \(5 and 1\): evaluate them with the same"),
        ({"split": "valid", "n": 3}, r"n \(7 and 3\), split \(\"test\" and \"valid\"\)"),
        ({"images": {"A/a": [[2], [1], [3]] * 9}}, r"images \(.* and other ones\)"),
        ({"seeds": 2}, r"seeds \(null and 2\)"),
        ({"hash": "bad"}, r"features domain \(\"f00\" and \"bad\"\)"),
    ],
)
def test_other_protocols_are_refused(other, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        compare.main(write(tmp_path, result(), result(**other)))
    assert "\n" not in str(error.value)


def test_feature_spaces_that_only_one_has(tmp_path, capsys):
    two, other = result(), result()
    two["features"]["pixels"] = copy.deepcopy(two["features"]["domain"])
    names = write(tmp_path, two, result())
    compare.main(names)
    assert "pixels" not in capsys.readouterr().out
    other["features"] = {"vgg": other["features"]["domain"]}
    with pytest.raises(ValueError, match="no common features, only domain, pixels and vgg"):
        compare.check_protocols(names, [two, other])


def test_one_run_is_too_few():
    with pytest.raises(ValueError, match="two runs or more"):
        compare.main(["runs/a"])

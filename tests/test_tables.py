"""Tables: a job that can be stopped anywhere, that chooses on validation data alone, and whose
numbers are those of the evaluations.
"""

import importlib
import json
import os
import signal
import sys
import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

import fsgan.transfer
from configs import maml_gan
from configs.tables import few_shot, learners, shots, transfer
from configs.tables.base import table_config
from fsgan import compare, loop, plugins, tables
from fsgan.tables import cells, columns, estimates, report, runs
from fsgan.tables.cells import Cell, Option
from fsgan.tables.estimates import Sample, estimate
from fsgan.tables.runs import Failed, Run, Runner

GROUPS = 4


def score(rng, shift: float = 0.0) -> dict:
    parts = (shift + rng.normal(size=GROUPS)).tolist()
    floor = (rng.normal(size=GROUPS) / 100).tolist()
    found = {"value": float(np.mean(parts)), "error": 0.1, "parts": parts, "ceiling": shift}
    return {**found, "floor": float(np.mean(floor)), "floor_parts": floor}


def evaluation(seed: int = 0, shift: float = 0.0, **protocol) -> dict:
    rng = np.random.default_rng([seed, round(1000 * shift)])
    names = ("kid", "recall", "diversity")
    found = {"hash": "f00", "units": 4, "scores": {name: score(rng, shift) for name in names}}
    shared = {"split": "test", "shots": 5, "n": 7, "m": 8, "unit": "class"}
    return {
        "protocol": {**shared, **protocol},
        "features": {"pixels": found},
        "step": 2,
        "config": {"seed": seed},
    }


class World:
    """A place where runs take no time: what was done in which order, and what is done."""

    def __init__(self, monkeypatch):
        self.log, self.done, self.broken, self.shifts, self.then = [], set(), {}, {}, {}
        for name in ("finish_training", "evaluate"):
            monkeypatch.setattr(runs, name, self.make)
        for name in ("trained", "evaluated"):
            monkeypatch.setattr(runs, name, lambda workdir, config: workdir.name in self.done)

    def make(self, workdir, config):
        name = workdir.name
        self.log.append(name)
        if name in self.broken:
            raise self.broken[name]
        workdir.mkdir(parents=True, exist_ok=True)
        if config.phase == "evaluate":
            found = evaluation(shift=self.shifts.get(name, 1.0))
            (workdir / "evaluation.json").write_text(json.dumps(found))
        self.done.add(name)
        self.then.pop(name, lambda: None)()


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def training(tmp_path, name: str, *needs: Run) -> Run:
    return Run(f"pretrain:smoke,data.size=(8,8),seed={len(name)}", tmp_path / name, needs)


def scored(tmp_path, name: str, *needs: Run) -> Run:
    return Run("evaluate:smoke", tmp_path / name, needs)


def table_of(monkeypatch, *planned: Cell, **fields) -> ConfigDict:
    """The config of a table with these cells."""
    config = table_config("toy", "Toy", "A toy.", smoke=True)
    config.update({"columns": ("kid", "recall"), "baseline": "finetune", **fields})
    toy = types.SimpleNamespace(plan=lambda config, workdir: planned)
    monkeypatch.setitem(sys.modules, "configs.tables.toy", toy)
    return config


class TestEstimates:
    def sample(self, seeds: int = 1, k: int = 1, seed: int = 0) -> Sample:
        scores = np.random.default_rng(seed).normal(size=(k, seeds, 1 + GROUPS))
        return Sample(scores, GROUPS)

    def test_one_seed_is_what_compare_says(self):
        each = [evaluation(seed, 3.0 * (1 - seed))["features"]["pixels"] for seed in (0, 1)]
        a, b = (found["scores"]["kid"] for found in each)
        stacked = [[x["value"], *x["parts"]] for x in (a, b)] + [[a["floor"], *a["floor_parts"]]]
        sample = Sample(np.array(stacked)[:, None], GROUPS)
        gap = estimate(estimates.gap_closed, [sample])
        assert (gap.value, gap.half) == pytest.approx(compare.gap_closed(a, b, GROUPS))
        delta = estimate(lambda a, b, floor: b - a, [sample])
        assert (delta.value, delta.half) == pytest.approx(compare.difference(a, b, GROUPS))

    def test_seeds_alone_are_students_t(self):
        values = np.random.default_rng(0).normal(size=5)
        same = np.repeat(values[None, :, None], 1 + GROUPS, 2)  # all classes alike
        found = estimate(lambda x: x, [Sample(same, GROUPS)])
        low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
        assert (found.value - found.half, found.value + found.half) == pytest.approx(
            (low, high), rel=1e-3
        )

    def test_several_sources_are_welchs(self):
        """Half the sum of two means with unequal variances, by two targets."""
        rng = np.random.default_rng(1)
        x, y = rng.normal(size=6), 3 * rng.normal(size=4)
        targets = [Sample(np.repeat(v[None, :, None], 1 + GROUPS, 2), GROUPS) for v in (x, y)]
        found = estimate(lambda x: x, targets)
        low, high = stats.ttest_ind(x, -y, equal_var=False).confidence_interval()
        assert found.value == pytest.approx((x.mean() + y.mean()) / 2)
        assert found.half == pytest.approx((high - low) / 4, rel=5e-3)

    def test_classes_and_seeds_add_up(self):
        sample = self.sample(seeds=3)
        values = sample.scores[0]
        found = estimate(lambda x: x, [sample])
        by_class = compare.panel.jackknife(values.mean(0)[1:], GROUPS) ** 2
        (a, b), (c, d) = found.sources
        assert (a, b, c, d) == pytest.approx((by_class, 3, values[:, 0].var(ddof=1) / 3, 2))

    def test_a_baseline_at_the_floor_has_no_gap(self):
        assert np.isnan(estimates.gap_closed(1.0, 2.0, 1.0))
        assert estimates.gap_closed(5.0, 2.0, 1.0) == 0.75


class TestRunner:
    def test_what_is_needed_comes_first_and_once(self, world, tmp_path):
        source = training(tmp_path, "source")
        a, b = (scored(tmp_path, n, training(tmp_path, f"run_{n}", source)) for n in "ab")
        do = Runner(lambda: False)
        assert do(a)["step"] == do(b)["step"] == 2
        do(a)
        assert world.log == ["source", "run_a", "a", "run_b", "b"]
        assert [line.split("=")[-1] for line in b.commands()] == [
            str(tmp_path / name) for name in ("source", "run_b", "b")
        ]

    def test_a_failure_is_that_of_all_that_need_it(self, world, tmp_path):
        world.broken["source"] = loop.NonFiniteError("g_loss is not\nfinite")
        source = training(tmp_path, "source")
        do = Runner(lambda: False)
        for name in "ab":
            with pytest.raises(Failed, match=r"source: g_loss is not finite$"):
                do(scored(tmp_path, name, source))
        assert world.log == ["source"]  # it is not tried for every one of them

    def test_a_bug_is_not_a_failed_run(self, world, tmp_path):
        world.broken["source"] = TypeError("a bug")
        with pytest.raises(TypeError):
            Runner(lambda: False)(training(tmp_path, "source"))

    def test_unknown_words_fail_in_one_line(self, tmp_path):
        with pytest.raises(Failed, match="unknown word 'smoek'; did you mean 'smoke'"):
            Runner(lambda: False)(Run("pretrain:smoek", tmp_path))

    def test_evaluations_with_other_settings_are_made_anew(self, tmp_path, monkeypatch):
        made = []

        def score(config, workdir):
            made.append(config.m)
            workdir.mkdir(exist_ok=True)
            (workdir / "evaluation.json").write_text(json.dumps(evaluation()))

        monkeypatch.setattr(runs.scoring, "run", score)
        for m in (4, 4, 5):
            Runner(lambda: False)(Run(f"evaluate:smoke,m={m}", tmp_path / "scores"))
        assert made == [4, 5]


def options(tmp_path, prefix: str, *labels: str) -> dict[str, Option]:
    return {
        label: Option(
            (scored(tmp_path, f"{prefix}valid{label}"),),
            (scored(tmp_path, f"{prefix}test{label}"),),
        )
        for label in labels
    }


class TestChoice:
    def test_test_data_are_read_at_the_chosen_option_alone(self, world, tmp_path):
        world.shifts = {"valid1": 3.0, "valid2": 1.0, "valid3": 2.0, "test1": -9.0}
        cell = Cell("p", "r", "t", options(tmp_path, "", *"123"))
        filled = cells.fill(cell, Runner(lambda: False), "kid")
        assert filled.chosen == "2"
        assert world.log == ["valid1", "valid2", "valid3", "test2"]

    def test_an_option_that_fails_is_not_chosen(self, world, tmp_path):
        world.broken["valid2"] = loop.NonFiniteError("it is not finite")
        cell = Cell("p", "r", "t", options(tmp_path, "", *"12"))
        filled = cells.fill(cell, Runner(lambda: False), "kid")
        assert (filled.chosen, filled.failed) == ("1", None)
        world.broken["valid1"] = ValueError("neither")
        world.done.clear()
        filled = cells.fill(cell, Runner(lambda: False), "kid")
        assert filled.failed.endswith("it is not finite")

    def test_a_sole_option_needs_no_validation(self, world, tmp_path):
        cell = Cell("p", "r", "t", options(tmp_path, "", "1"))
        assert cells.fill(cell, Runner(lambda: False), "kid").chosen == "1"
        assert world.log == ["test1"]


def toy_cells(tmp_path) -> list[Cell]:
    rows = {row: options(tmp_path, row, "10", "20") for row in ("finetune", "ours")}
    return [Cell("a, 5 shots", row, "t", each) for row, each in rows.items()]


class TestJob:
    def test_stopped_between_runs_it_goes_on(self, world, tmp_path, monkeypatch):
        config = table_of(monkeypatch, *toy_cells(tmp_path))
        world.then["oursvalid10"] = lambda: os.kill(os.getpid(), signal.SIGTERM)
        assert tables.run(config, tmp_path) is None
        assert world.log[-1] == "oursvalid10"
        text = (tmp_path / "table.md").read_text()
        assert "| finetune | 10 |" in text
        assert "| ours | not done yet |" in text
        filled = tables.run(config, tmp_path)
        assert world.log[-2:] == ["oursvalid20", "ourstest10"]
        assert len(world.log) == len(set(world.log)) == 6
        assert [each.cell.row for each in filled] == ["finetune", "ours"]

    def test_a_failed_row_says_so_and_the_job_goes_on(self, world, tmp_path, monkeypatch, capsys):
        config = table_of(monkeypatch, *toy_cells(tmp_path))
        world.broken["finetunetest10"] = ValueError("no such\nthing")
        with pytest.raises(Failed, match=r"1 of 2 cells failed: finetune \(.*no such thing\)"):
            tables.run(config, tmp_path)
        text = (tmp_path / "table.md").read_text()
        assert "| finetune | failed: " in text
        assert "| ours | 10 | " in text
        results = json.loads((tmp_path / "results.json").read_text())
        assert results["cells"][0]["failed"].endswith("finetunetest10: no such thing")
        assert results["cells"][1]["failed"] is None

    def filled(self, tmp_path, row, **protocol) -> cells.Filled:
        run = scored(tmp_path, row)
        return cells.Filled(Cell("p", row, "t", {}), "", {}, {run: evaluation(**protocol)}, None)

    def test_rows_with_other_protocols_are_refused(self, tmp_path):
        ours, other = self.filled(tmp_path, "ours", n=3), self.filled(tmp_path, "finetune")
        with pytest.raises(ValueError, match=r"differ in n \(3 and 7\)"):
            columns.check_protocols([ours], [other])

    def test_the_heading_says_how_all_rows_were_measured(self, tmp_path):
        rows = [[self.filled(tmp_path, f"{n} shots", shots=n)] for n in (2, 14)]
        text = report.measured(rows)
        assert text.startswith("Split test, 2, 14 shots; targets: 1, seeds: 1; 4 classes, n=7 real")

    def test_the_numbers_are_those_of_the_evaluations(self, world, tmp_path, monkeypatch):
        world.shifts = {"finetunetest10": 5.0, "ourstest10": 2.0}
        config = table_of(monkeypatch, *toy_cells(tmp_path), over="steps", curves=("kid",))
        tables.run(config, tmp_path)
        results = json.loads((tmp_path / "results.json").read_text())
        (rows,) = results["rows"].values()
        kids = {}
        for cell in results["cells"]:
            (commands,) = cell["runs"]
            assert commands[-1].endswith(f"--workdir={tmp_path}/{cell['row']}test10")
            file = tmp_path / f"{cell['row']}test10" / "evaluation.json"
            found = json.loads(file.read_text())["features"]["pixels"]["scores"]
            kept = results["evaluations"][commands[-1]]["features"]["pixels"]["scores"]
            kids[cell["row"]] = found["kid"]
            assert {name: x["value"] for name, x in kept.items()} == pytest.approx(
                {name: x["value"] for name, x in found.items()}
            )
            assert rows[cell["row"]]["kid"][0] == pytest.approx(found["kid"]["value"])
        assert rows["ours"]["gap closed"] == pytest.approx(
            compare.gap_closed(kids["finetune"], kids["ours"], GROUPS)
        )
        text = (tmp_path / "table.md").read_text()
        value, half = rows["ours"]["kid"]
        assert f"| ours | 10 | {value:.3g} ± {half:.2g} |" in text
        assert f"| real images | | {kids['finetune']['floor']:.3g} ±" in text
        assert (tmp_path / "a_5_shots.png").stat().st_size > 1000

    def test_what_was_evaluated_elsewhere_is_not_made_again(self, world, tmp_path, monkeypatch):
        """The table comes out the same, curves too; other cells are made as always."""
        first, second = toy_cells(tmp_path)
        fields = {"over": "steps", "curves": ("kid",)}
        tables.run(table_of(monkeypatch, first, **fields), tmp_path)
        tables.run(table_of(monkeypatch, first, second, **fields), tmp_path)
        whole = (tmp_path / "table.md").read_text()
        elsewhere = tmp_path / "elsewhere.json"
        (tmp_path / "results.json").rename(elsewhere)
        world.log.clear()
        world.done.clear()
        config = table_of(monkeypatch, first, second, **fields, known=(str(elsewhere),))
        tables.run(config, tmp_path)
        assert world.log == []
        assert (tmp_path / "table.md").read_text() == whole
        third = Cell(first.part, "third", "t", options(tmp_path, "third", "10"))
        tables.run(table_of(monkeypatch, first, third, **fields, known=config.known), tmp_path)
        assert world.log == ["thirdtest10"]
        with pytest.raises(ValueError, match=r"elsewhere.json',\) has no evaluation of this table"):
            tables.run(table_of(monkeypatch, third, **fields, known=config.known), tmp_path)
        elsewhere.write_text("{}")
        with pytest.raises(ValueError, match=r"known='.*elsewhere.json' has no evaluations"):
            tables.run(config, tmp_path)

    def test_curves_are_means_of_validation_scores(self, tmp_path):
        def filled(shift: float, target: str) -> cells.Filled:
            valid = {
                label: {scored(tmp_path, f"{target}{label}"): evaluation(shift=shift * int(label))}
                for label in ("1", "2")
            }
            return cells.Filled(Cell("p", "r", target, {}), "1", valid, {}, None)

        (panel,) = report.curves({"r": [filled(1, "a"), filled(3, "b")]}, ("kid",)).values()
        steps, values = panel["r"].T
        one = [evaluation(shift=s)["features"]["pixels"]["scores"]["kid"]["value"] for s in (1, 3)]
        assert steps.tolist() == [0, 1, 2]
        assert values[:2] == pytest.approx([2.0, np.mean(one)])  # at 0 the mean of the ceilings


def test_a_run_is_stopped_resumed_and_skipped(tmp_path, monkeypatch, capsys):
    """A real one: killed in the middle, the same job goes on, and finds it done the next time."""
    words = "pretrain:smoke,data.size=(8,8),steps=2,report_every=1,observe_every=2,save_every=1"
    run = Run(words, tmp_path / "run")
    config = run.load()
    assert not runs.trained(run.workdir, config)
    write = loop.Logger.write

    def interrupted(*args, **kwargs):
        write(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop.Logger, "write", interrupted)
    cell = Cell("p", "r", "t", {"": Option((), (run,))})
    assert tables.run(table_of(monkeypatch, cell), tmp_path) is None
    assert "saved step 1; the same command goes on" in capsys.readouterr().out
    assert not runs.trained(run.workdir, config)
    monkeypatch.setattr(loop.Logger, "write", write)
    Runner(lambda: False)(run)
    assert "step 1 of 2" in capsys.readouterr().out
    assert runs.trained(run.workdir, config)
    assert not runs.trained(run.workdir, Run(words + ",seed=1", run.workdir).load())
    Runner(lambda: False)(run)
    assert capsys.readouterr().out == ""
    with pytest.raises(Failed, match="belongs to another config: seed is 0 there, 1 here"):
        Runner(lambda: False)(Run(words + ",seed=1", run.workdir))


class TestPlans:
    """The tables themselves, without running them."""

    def plan(self, module, tmp_path, arg: str = "") -> list[Cell]:
        return module.plan(module.get_config(arg), tmp_path)

    @pytest.mark.parametrize("name", ["few_shot", "learners", "shots", "transfer"])
    @pytest.mark.parametrize("arg", ["", "smoke"])
    def test_every_run_has_a_config_and_a_workdir_of_its_own(self, name, arg, tmp_path):
        found: dict = {}

        def walk(run: Run):
            assert found.setdefault(run.workdir, run) == run
            for other in run.needs:
                walk(other)

        module = importlib.import_module(f"configs.tables.{name}")
        for cell in self.plan(module, tmp_path, arg):
            for option in cell.options.values():
                for run in (*option.valid, *option.test):
                    walk(run)
        some = list(found.values())[:: max(1, len(found) // 100)]
        for run in some:
            config = run.load()
            if config.phase == "evaluate":
                assert config.run == str(run.needs[0].workdir)
            if config.get("init_from"):
                assert config.init_from == str(run.needs[0].workdir)

    def test_few_shot_baselines_validate_on_validation_classes(self, tmp_path):
        finetune, scratch = self.plan(few_shot, tmp_path)[1:3]
        for cell, fresh in ((finetune, False), (scratch, True)):
            for option in cell.options.values():
                valid, test = option.valid[0].load(), option.test[0].load()
                assert (valid.split, test.split) == ("valid", "test")
                assert (valid.inner, valid.fresh) == (test.inner, fresh)
                assert (test.shots, test.adapt_steps, test.classes) == (5, 10, 0)
        assert len({str(o.test[0].load().inner) for o in finetune.options.values()}) == 3
        loaded = [o.test[0].load() for o in finetune.options.values()]
        assert {(x.average, x.truncation, x.repeat) for x in loaded} == {
            ("none", None, 1),
            ("ema", None, 1),
            ("none", 0.3, 1),
            ("ema", 0.3, 4),  # as in the main job
        }

    def test_baselines_see_as_many_images_as_the_main_job(self, tmp_path):
        for data in ("glyphs", "omniglot"):
            meta, finetune, _ = self.plan(few_shot, tmp_path, data)
            (main,), (pretrain,) = (
                next(iter(cell.options.values())).test[0].needs for cell in (meta, finetune)
            )
            main, pretrain = main.load(), pretrain.load()
            of_g = main.steps * main.tasks * main.adapt.steps * main.shots
            mean = of_g * (1 + main.d_steps) / 2  # over both players
            assert pretrain.steps * pretrain.batch == pytest.approx(mean, rel=0.01)

    def test_the_same_main_jobs_adapt_to_more_and_to_fewer_images(self, tmp_path):
        found = self.plan(shots, tmp_path, "shots=(1,14),seeds=2")
        assert [cell.row for cell in found] == ["1 shot", "14 shots"]
        one, many = ([run for o in c.options.values() for run in o.test] for c in found)
        assert [run.needs for run in one] == [run.needs for run in many]
        for i, run in enumerate(one):
            (main,) = run.needs
            expected = maml_gan.get_config(f"omniglot,seed={i}")
            assert main.load().to_dict() == expected.to_dict()
        assert {(run.load().shots, run.load().split) for run in one} == {(1, "test")}
        assert {(run.load().shots, run.load().split) for run in many} == {(14, "test")}

    def test_transfer_stops_are_chosen_on_another_target(self, tmp_path):
        for cell in self.plan(transfer, tmp_path, "finetune,smoke,seeds=1,pairs=('mnist_digits',)"):
            for stop, option in cell.options.items():
                valid, test = (run.load() for run in (option.valid[0], option.test[0]))
                assert (valid.step, test.step) == (int(stop), int(stop))
                valid, test = (run.needs[0] for run in (option.valid[0], option.test[0]))
                assert test.load().steps == int(stop)
                assert valid.load().steps == 4
                assert (valid.load().split, test.load().split) == ("valid", "test")
                assert valid.load().data.classes != test.load().data.classes
                for run in (valid, test):  # which the source has never seen
                    assert run.needs[0].load().data.exclude == run.load().data.classes

    def test_transfer_has_a_row_for_every_method_with_words_that_are_known(self, tmp_path):
        methods = set(plugins.names(fsgan.transfer)) - set(transfer.SWITCHES)
        assert methods <= set(transfer.get_config().methods)
        assert set(transfer.SWITCHES) <= set(transfer.get_config("every").methods)
        for name in methods:
            cell = self.plan(transfer, tmp_path, f"{name},smoke")[-1]
            config = cell.options["4"].test[0].needs[0].load()
            assert config.method.name == name
            if name == "minegan":
                assert config.optimizer.layers == {"g/miner": 0.1}

    def test_validation_targets_are_no_test_targets(self):
        for pairs in transfer.PAIRS.values():
            for test, valid in pairs:
                assert (test.split, valid.split) == ("test", "valid")
                assert test.data != valid.data
        digits = transfer.PAIRS["mnist_digits"]
        assert len({test.data for test, _ in digits}) == 10

    @pytest.mark.parametrize("data", ["glyphs", "omniglot"])
    def test_learners_are_trained_equally_long(self, data, tmp_path):
        config = learners.get_config(f"{data},steps=690")
        assert config.pretrain_steps == 1_000
        found = learners.plan(config, tmp_path)
        assert [c.row for c in found[:2]] == ["finetune", "scratch"]
        for cell in found[2:]:
            (run,) = cell.options[""].test[0].needs
            each = [x.load() for x in (run, *run.needs)]  # a warm start is the same for all
            assert sum(x.steps for x in each) == 690
            assert {(x.tasks, x.shots, x.adapt.steps, x.seed) for x in each} == {(2, 5, 8, 0)}
            asked = {(x.train_shots, x.nets.place, x.latent, x.inner.lr) for x in each}
            assert asked == {(None, 0.0, 64, 0.05)}
            assert {x.adapt.test_rate for x in each} == {1.0}
            assert {x.outer.lr for x in each} <= {2e-3, config.own_lr, 1.0}  # 1.0: SGD's
            assert (cell.row in learners.WARM) == (each[0].init_from != "") == (len(each) > 1)

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(ValueError, match="unknown pair 'digits'; did you mean 'mnist_digits'"):
            self.plan(transfer, tmp_path, "pairs=('digits',)")
        with pytest.raises(ValueError, match="unknown row 'mmal'; did you mean 'maml'"):
            self.plan(learners, tmp_path, "rows=('mmal',)")
        with pytest.raises(ValueError, match="own_steps=150 must be 1 to steps - 1=99"):
            self.plan(learners, tmp_path, "steps=100")
        with pytest.raises(ValueError, match=r"stops=\(4, 6\) must be multiples of the first, 4"):
            self.plan(transfer, tmp_path, "stops=(4,6)")
        with pytest.raises(ValueError, match="'folder:x' has no test images"):
            transfer.get_config("folder:x")

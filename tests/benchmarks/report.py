"""From meta_step.json to a table and a picture beside it: meta_step.md, meta_step.png.

python tests/benchmarks/report.py tests/benchmarks/meta_step.json
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def table(results: dict) -> str:
    """Markdown: what a step takes in each form, and what fsgan's compilation does."""
    machine, lines = results["machine"], []
    lines += [
        f"Medians of {results['rounds']} interleaved rounds (range), {machine['cores']} cores of "
        f"{machine['cpu'] or 'a CPU'}, load {machine['load']:.1f} before; matrix products reach "
        f"{results['matmul_gflops']:.0f} GFLOP/s. Ratios are times over fsgan's.",
        "",
        "| step | form | ms | ratio | gradient differs by | peak MB | of matrix-product speed |",
        "|---|---|---|---|---|---|---|",
    ]
    for job, found in results["jobs"].items():
        for form, x in found["forms"].items():
            error = "-" if x.get("error") is None else f"{x['error']:.0e}"
            lines.append(
                f"| {job} | {form} | {x['ms']:.0f} ({x['min_ms']:.0f} to {x['max_ms']:.0f}) | "
                f"{x['times_fsgan']:.2f} | {error} | {x['peak_mb']:.0f} | "
                f"{found['of_peak'][form]:.0%} |"
            )
    lines += ["", "| step | compiled in, cold | cached |", "|---|---|---|"]
    for job, (cold, cached) in results["compile_seconds"].items():
        lines.append(f"| {job} | {cold:.1f} s | {cached:.1f} s |")
    for what in ("growth", "formulations"):
        if what not in results:
            continue
        lines += ["", f"| step | {what} | ms | program's MB |", "|---|---|---|---|"]
        for name, x in results[what].items():
            job, setting = name.split(" ", 1)
            lines.append(f"| {job} | {setting} | {x['ms']:.0f} | {x['program_mb']:.0f} |")
    return "\n".join(lines)


def picture(results: dict) -> plt.Figure:
    """Times of all forms over fsgan's, and how fsgan's grow with each setting."""
    growth = results.get("growth", {})
    figure, axes = plt.subplots(1, 2 if growth else 1, figsize=(12 if growth else 6, 4))
    left, *right = axes if growth else [axes]
    labels = []
    for job, found in results["jobs"].items():
        for form, x in found["forms"].items():
            colour = "tab:blue" if form == "fsgan" else "tab:grey"
            left.barh(len(labels), x["times_fsgan"], color=colour)
            labels.append(f"{job}: {form}")
    left.set_yticks(range(len(labels)), labels)
    left.invert_yaxis()
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xlabel("time of a step over fsgan's")
    if growth:
        (axis,) = right
        lines = {}
        for name, x in growth.items():
            job, setting, value = re.fullmatch(r"(\w+) (\w+)=(\d+)", name).groups()
            lines.setdefault(f"{job}: {setting}", []).append((int(value), x["ms"]))
        for label, points in lines.items():
            (first, ms), *_ = points
            axis.plot(
                [v / first for v, _ in points], [t / ms for _, t in points], "o-", label=label
            )
        axis.plot([1, 4], [1, 4], "k--", linewidth=0.8, label="linear")
        axis.set(xscale="log", yscale="log", xlabel="setting, times its smallest", ylabel="time")
        axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def main() -> None:
    source = Path(sys.argv[1])
    results = json.loads(source.read_text())
    source.with_suffix(".md").write_text(f"# Speed of a step\n\n{table(results)}\n")
    picture(results).savefig(source.with_suffix(".png"), dpi=100)


if __name__ == "__main__":
    main()

"""The watch: what is going wrong while a GAN trains, in plain words.

    for warning in look(workdir): ...

It reads what a run has reported, at the steps at which samples were scored; so it has no state, and
a resumed run warns as one that was never stopped. A look is what was reported of one such step,
{name: value}: the metrics of `gan.make_step` and the scores of `evaluate`. What a run does not
report is not watched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Look = Mapping[str, float]

# Of what real images have, or samples had: below that is no fluctuation of a few hundred images.
COLLAPSED = 0.1
# Of the distance to the nearest training image that new images have: samples at half of it have
# little of their own.
COPIED = 0.5
# The outputs of a discriminator have no unit of their own, but vary less than by this factor.
APART = 1.5
# Of the KID to plain images, and of that between these and augmented ones. Where a share a of the
# samples are augmented it is (1 - a)^2 / a^2 of the one, (1 - a)^2 of the other: a = 2/3.
LEAKED = 0.25


def look(workdir: Path) -> list[str]:
    """Warnings, one line each, of what the last scores show and those before did not."""
    looks = history(workdir)
    before = warnings(looks[:-1])
    return [line for kind, line in warnings(looks).items() if kind not in before]


def history(workdir: Path) -> list[Look]:
    """The looks in metrics.jsonl, oldest first; values that were not finite are left out."""
    path, reports, scored = Path(workdir) / "metrics.jsonl", {}, set()
    for record in map(json.loads, path.read_text().splitlines() if path.exists() else ()):
        known = {k.removeprefix("score/"): v for k, v in record.items() if v is not None}
        reports.setdefault(record["step"], {}).update(known)
        if any(name.startswith("score/") for name in record):
            scored.add(record["step"])
    return [reports[step] for step in sorted(scored)]


def warnings(looks: Sequence[Look]) -> dict[str, str]:
    """What the last of the looks shows, {kind: sentence}; nothing where there are none."""
    checks = {"collapse": collapse, "memorised": memorised, "leak": leak}
    found = {kind: check(looks) for kind, check in checks.items()} if looks else {}
    return {kind: line for kind, line in found.items() if line}


def collapse(looks: Sequence[Look]) -> str | None:
    """Recall or the distance between samples is almost nothing beside real images or the past."""
    now = looks[-1]
    for name in ("recall", "spread", "diversity"):
        best = max(look.get(name, 0.0) for look in looks)
        floor = now.get(f"{name}_floor", 0.0)
        limit = COLLAPSED * max(best, floor)
        # Recall begins at 0, until samples look like images: it must have been there to be lost.
        if name in now and now[name] < limit and (best >= limit or name != "recall"):
            real = f", {floor:.3g} of real images" if floor else ""
            return (
                f"the samples collapse: {name} is {now[name]:.3g}, {best:.3g} at its best{real}; "
                "go back to the best checkpoint, lower the rates or raise the penalty's weight"
            )
    return None


def memorised(looks: Sequence[Look]) -> str | None:
    """The discriminator tells real from generated ever better while the samples become copies.

    Such a discriminator lets nothing pass but the training images. Its outputs are compared with
    those at the look at which the samples were newest.
    """
    name = next((n for n in ("copying_ratio", "nearest_target") if n in looks[-1]), None)
    known = [look for look in looks if {name, "d_real", "d_fake"} <= look.keys()]
    if not known or known[-1] is not looks[-1]:
        return None
    now, newest = known[-1], max(known, key=lambda look: look[name])
    gap, before = (look["d_real"] - look["d_fake"] for look in (now, newest))
    if now[name] >= COPIED or gap <= max(0.0, APART * before):
        return None
    return (
        f"the discriminator has memorised its images: its outputs for real and generated ones are "
        f"{gap:.3g} apart, at step {newest['step']:.0f} {before:.3g}, and {name} has fallen from "
        f"{newest[name]:.3g} to {now[name]:.3g}; stop earlier, augment, or train on more images"
    )


def leak(looks: Sequence[Look]) -> str | None:
    """The samples look like augmented images rather than like the images themselves.

    They must be near to augmented images beside what lies between these and plain ones: samples
    that are far from both, as at the beginning, may be on either side.
    """
    names = ("kid_to_targets", "kid_to_augmented", "kid_of_augmentation")
    if not all(name in looks[-1] for name in names):
        return None
    plain, augmented, between = (looks[-1][name] for name in names)
    room = min(plain, between)  # unbiased estimates: either may be below 0, where all are equal
    if room <= 0 or augmented >= LEAKED * room:
        return None
    return (
        f"the augmentation leaks: the samples' KID is {augmented:.3g} to augmented target images, "
        f"{plain:.3g} to these as they are; augment less, or less often"
    )

"""What to do: the measures in plain words, each with the figures that it rests on.

The thresholds are rules of thumb, not theorems; each stands here by its name. Whatever is advised
is to be tried on validation users, and to be kept only if it ranks better there.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from coterie.evaluation.compare import compare
from coterie.lab.collaboration.analyze import QUALITY, Analysis, Findings
from coterie.lab.collaboration.pairs import GLOBAL

Level: TypeAlias = Literal["fine", "look", "act"]

FEW_ACTIVE = 0.1
"""Share of active dimensions below which the latent space counts as collapsing."""
CONFUSED, SOME_CONFUSED = 0.5, 0.9
"""Probabilities of telling a user by a latent point below which users are confused, or worth a
look: sooner than dimensions go inactive.
"""
STRONG_DRIFT, SOME_DRIFT = 0.1, 0.3
"""Overlaps of neighbourhoods under two masks below which drift is strong, or worth a look."""
TOO_LOCAL = 0.75
"""Share of helpful transfer from global pairs over their share of all pairs, below which sharing
counts as local.
"""
USUAL_PIA = (0.1, 0.3, 1.0)
"""λ_A to try first where there is none."""


@dataclass(frozen=True)
class Advice:
    """One sentence of the verdict.

    Args:
        setting: Which it is about.
        about: Collapse, drift, locality, influence or PIA.
        level: ``fine``, ``look`` or ``act``.
        says: What was found and what to try.
        rests_on: The figures behind it.
    """

    setting: str
    about: str
    level: Level
    says: str
    rests_on: str


def verdict(analysis: Analysis) -> tuple[Advice, ...]:
    """All advice, setting by setting."""
    advice: list[Advice] = []
    for one in analysis.settings:
        advice += [
            _collapse(one),
            _drift(one),
            _locality(one),
            _influence(one),
            _pia(one, analysis),
        ]
    return tuple(advice)


def _collapse(one: Findings) -> Advice:
    found, weight = one.bottleneck, "γ" if one.model.endswith("recvae") else "β"
    dims = len(found.mean_variance)
    rests = (
        f"{found.n_active} of {dims} dimensions active, a latent point tells"
        f" {found.information_nats:.1f} to {found.information_at_most_nats:.1f} nats of its user,"
        f" and who it is of {found.n_users:,} with probability {found.own_probability:.2f}, mean KL"
        f" {found.mean_kl_nats:.1f} nats"
    )
    if found.n_active == 0:
        return Advice(
            one.name,
            "collapse",
            "act",
            f"Collapsed: users are one point to the decoder. Lower {weight} ({one.kl_weight:g}).",
            rests,
        )
    if found.n_active < FEW_ACTIVE * dims:
        return Advice(
            one.name,
            "collapse",
            "act",
            f"Most of the latent space is unused. Lower {weight} ({one.kl_weight:g}) or the"
            " dimension.",
            rests,
        )
    if found.n_active < dims / 2:
        return Advice(
            one.name,
            "collapse",
            "look",
            f"More than half of the dimensions are unused: a smaller {weight} or latent space"
            " may do.",
            rests,
        )
    if found.own_probability < CONFUSED:
        return Advice(
            one.name,
            "collapse",
            "act",
            f"Users are confused with one another. Lower {weight} ({one.kl_weight:g}).",
            rests,
        )
    if found.own_probability < SOME_CONFUSED:
        return Advice(
            one.name,
            "collapse",
            "look",
            f"Users begin to be confused: see whether a smaller {weight} ranks better.",
            rests,
        )
    return Advice(one.name, "collapse", "fine", "No collapse.", rests)


def _drift(one: Findings) -> Advice:
    at = one.drift_at(min(one.keep_prob, 0.5))
    overlap = at.mean_overlap
    if not at.between:
        return Advice(
            one.name,
            "drift",
            "look",
            "Users do not differ, so nobody is near to anybody: see collapse.",
            "no distance between users",
        )
    rests = (
        f"{overlap:.0%} of the {at.k} nearest users common to two masks of keep_prob"
        f" {at.keep_prob:g} (Jaccard), spread over masks {at.ratio:.2f} of the distance between"
        " users"
    )
    if overlap < STRONG_DRIFT:
        return Advice(
            one.name, "drift", "act", f"Neighbourhoods hardly outlive a mask. {_calm(one)}", rests
        )
    if overlap < SOME_DRIFT:
        return Advice(
            one.name,
            "drift",
            "look",
            f"Masks change most of a user's neighbours. {_calm(one)}",
            rests,
        )
    return Advice(one.name, "drift", "fine", "Neighbourhoods largely outlive masks.", rests)


def _calm(one: Findings) -> str:
    return (
        f"A keep_prob above {one.keep_prob:g} calms them."
        if one.keep_prob < 1
        else "Training with masks (keep_prob 0.5) may calm them."
    )


def _locality(one: Findings) -> Advice:
    share, low, high = one.cosine.share_of(*GLOBAL)
    of_pairs = float(one.cosine.n_pairs[list(GLOBAL)].sum() / one.cosine.n_pairs.sum())
    rests = (
        f"{share:.1%} [{low:.1%}, {high:.1%}] of helpful transfer (cosines) is between far but"
        f" related users, {of_pairs:.1%} of all pairs"
    )
    if share < TOO_LOCAL * of_pairs:
        says = (
            "Far but related users help each other less than their number. By theory masks and PIA"
            " change that: see whether they do here."
        )
        return Advice(one.name, "locality", "look", says, rests)
    return Advice(
        one.name, "locality", "fine", "Far but related users take their part in helping.", rests
    )


def _influence(one: Findings) -> Advice:
    curve = one.influence_by_angle
    near, far = (curve.cosine[0], curve.cosine_low[0]), (curve.cosine[-1], curve.cosine_high[-1])
    rests = (
        f"mean cosine of gradients {near[0]:.4f} among the tenth of pairs at the smallest latent"
        f" angle, {far[0]:.4f} at the largest"
    )
    if near[1] > far[1]:
        return Advice(
            one.name,
            "influence",
            "fine",
            "Influence falls with the latent angle, as the theory has it.",
            rests,
        )
    return Advice(
        one.name,
        "influence",
        "look",
        "Influence does not clearly fall with the latent angle: latent neighbours say little here.",
        rests,
    )


def _pia(one: Findings, analysis: Analysis) -> Advice:
    without = [other for other in analysis.settings if not other.pia and alike(one, other)]
    if not one.pia:
        values = ", ".join(f"{value:g}" for value in USUAL_PIA)
        return Advice(
            one.name,
            "PIA",
            "look",
            f"Trained without. Try λ_A {values} with the same keep_prob and {QUALITY.upper()} on"
            " validation users.",
            "λ_A = 0",
        )
    if not without or not one.quality or not without[0].quality:
        lacking = (
            "validation users to hold out"
            if without
            else "a run beside it that differs in λ_A alone"
        )
        return Advice(
            one.name,
            "PIA",
            "look",
            f"To judge PIA, this analysis needs {lacking}.",
            f"λ_A = {one.pia:g}",
        )
    gain = compare(one.quality, without[0].quality, seed=analysis.options.seed).overall[QUALITY]
    rests = (
        f"{QUALITY.upper()} {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over"
        f" {without[0].name} (validation users)"
    )
    if gain.low > 0:
        return Advice(
            one.name,
            "PIA",
            "fine",
            f"PIA helps the ranking. Try λ_A {one.pia / 3:.2g} and {one.pia * 3:.2g} beside it.",
            rests,
        )
    if gain.high < 0:
        return Advice(
            one.name,
            "PIA",
            "act",
            f"PIA costs ranking here. Try λ_A {one.pia / 10:.2g}, or go without.",
            rests,
        )
    return Advice(
        one.name,
        "PIA",
        "look",
        f"PIA's effect on the ranking is undecided. Try λ_A {one.pia / 3:.2g} and"
        f" {one.pia * 3:.2g}, with more seeds.",
        rests,
    )


def alike(one: Findings, other: Findings) -> bool:
    """Whether two settings can differ in PIA and seed alone."""
    return (one.rest, one.keep_prob, one.kl_weight) == (
        other.rest,
        other.keep_prob,
        other.kl_weight,
    )

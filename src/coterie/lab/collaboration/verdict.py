"""What to do: the measures in plain words, each with the figures that it rests on.

Nothing is judged by a number in the units of a model. A finding counts if its interval leaves out
what chance, the ceiling of an estimate or the setting beside it would give, or if it passes a scale
that the model sets itself, as the noise of its own posteriors. Whatever is advised is to be tried
on validation users, and to be kept only if it ranks better there.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from coterie.evaluation.compare import compare
from coterie.lab.collaboration.analysis import QUALITY, Analysis, Findings
from coterie.lab.collaboration.bottleneck import Bottleneck
from coterie.lab.collaboration.pairs import GLOBAL, PairKind

Level: TypeAlias = Literal["fine", "look", "act"]

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
            _collapse(one, analysis),
            _drift(one),
            _locality(one),
            _influence(one),
            _pia(one, analysis),
        ]
    return tuple(advice)


def _collapse(one: Findings, analysis: Analysis) -> Advice:
    found, weight = one.bottleneck, "γ" if one.model.endswith("recvae") else "β"
    lower, dims = f"Lower {weight} ({one.kl_weight:g})", len(found.mean_variance)
    if found.n_active == 0:
        level, says = "act", f"Collapsed: users are one point to the decoder. {lower}."
    elif _confused(found):
        better = _looser(one, analysis)
        level = "act" if better else "look"
        says = "Users are confused with one another: " + (
            f"{better} confuses them less and ranks better. {lower}."
            if better
            else f"see whether a smaller {weight} than {one.kl_weight:g} ranks better."
        )
    elif found.n_active < dims:
        level, says = "look", f"{dims - found.n_active} dimensions carry nothing: fewer may do."
    else:
        level, says = "fine", "No collapse."
    return Advice(one.name, "collapse", level, says, _of_bottleneck(found))  # type: ignore[arg-type]


def _confused(found: Bottleneck) -> bool:
    """Whether a latent point is somebody else's as likely as its user's."""
    return found.own_probability <= 1 / 2


def _looser(one: Findings, analysis: Analysis) -> str:
    """A setting of less KL weight, alike in all else, that tells more of its users and ranks
    better for certain; empty without one.
    """
    kept = (one.rest, one.keep_prob, one.pia)
    for other in analysis.settings:
        tells_more = other.bottleneck.information_nats > one.bottleneck.information_nats
        looser = (
            other.rest,
            other.keep_prob,
            other.pia,
        ) == kept and other.kl_weight < one.kl_weight
        if looser and tells_more and _ranks_better(other, one, analysis.options.seed):
            return other.name
    return ""


def _ranks_better(one: Findings, other: Findings, seed: int) -> bool:
    if not one.quality or not other.quality:
        return False
    return compare(one.quality, other.quality, seed=seed).overall[QUALITY].low > 0


def _of_bottleneck(found: Bottleneck) -> str:
    return (
        f"{found.n_active} of {len(found.mean_variance)} dimensions alive (users' means vary by"
        f" more than a hundredth of the posterior's variance), a latent point tells"
        f" {found.information_nats:.1f} to {found.information_at_most_nats:.1f} nats of its user,"
        f" and who it is of {found.n_users:,} with probability {found.own_probability:.2f}, mean KL"
        f" {found.mean_kl_nats:.1f} nats, {found.kl_of_means_nats:.1f} by means away from the"
        f" origin and {found.kl_of_variances_nats:.1f} by narrow posteriors"
    )


def _drift(one: Findings) -> Advice:
    at = one.drift_at(min(one.keep_prob, 0.5))
    if not at.between:
        says = "Users do not differ, so nobody is near to anybody: see collapse."
        return Advice(one.name, "drift", "look", says, "no distance between users")
    (low, high), chance = at.overlap_interval(), at.chance_overlap()
    rests = (
        f"{at.mean_overlap:.0%} [{low:.1%}, {high:.1%}] of the {at.k} nearest users common to two"
        f" masks of keep_prob {at.keep_prob:g} (Jaccard; {chance:.1%} by chance), spread over masks"
        f" {at.in_sigma:.2f} of a posterior's own noise and {at.ratio:.2f} of the distance between"
        f" users; {one.semantics.recall.mean():.0%} of the nearest by history are near by angle"
    )
    if low <= chance:
        says = f"Neighbourhoods outlive a mask no better than by chance. {_calm(one)}"
        return Advice(one.name, "drift", "act", says, rests)
    if at.in_sigma > 1:
        says = f"Masks move users farther than their own posterior's noise. {_calm(one)}"
        return Advice(one.name, "drift", "look", says, rests)
    says = "Masks move users less than the noise of their own posteriors."
    return Advice(one.name, "drift", "fine", says, rests)


def _calm(one: Findings) -> str:
    return (
        f"A keep_prob above {one.keep_prob:g} calms them."
        if one.keep_prob < 1
        else "Training with masks (keep_prob 0.5) may calm them."
    )


def _locality(one: Findings) -> Advice:
    whole = one.whole
    what = "over the decoder" if one.teaching is None else "over all parameters, of hidden items"
    (far, low, high), near = whole.mean_of(*GLOBAL), whole.mean_of(PairKind.LOCAL)
    rests = (
        f"net mean cosine {what}: {far:+.4f} [{low:+.4f}, {high:+.4f}] between far but related"
        f" users, {near[0]:+.4f} [{near[1]:+.4f}, {near[2]:+.4f}] between near ones; of all help"
        f" {whole.share_of(*GLOBAL)[0]:.1%} and of all harm {whole.harm_of(*GLOBAL)[0]:.1%} is"
        " between the former"
    )
    if low > 0:
        return Advice(one.name, "locality", "fine", "Far but related users help each other.", rests)
    says = (
        "Far but related users stand in each other's way."
        if high < 0
        else "Whether far but related users help each other is undecided."
    )
    says += " By theory masks and PIA change that: see whether they do here."
    return Advice(one.name, "locality", "look", says, rests)


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

"""The demo's models, and what each is for."""

from collections.abc import Mapping
from typing import Any

POPULARITY, EASE, MULT_VAE, PIA, PATH = (
    "popularity",
    "EASE",
    "Mult-VAE",
    "Mult-VAE + PIA",
    "Mult-VAE + EASE path",
)

_EASE = {"name": "ease", "l2": 300.0}

MODELS: Mapping[str, Mapping[str, Any]] = {
    POPULARITY: {"name": "popularity"},
    EASE: _EASE,
    MULT_VAE: {"name": "mult-vae"},
    PIA: {"name": "mult-vae", "pia": 0.3},
    PATH: {"name": "linear-path-vae", "path": _EASE},
}
"""All else is as by default. λ and λ_A were chosen on validation users of another service (seed
11), that all else stays on those of three (11 to 13): see docs/results.md.
"""


def training(n_users: int) -> dict[str, int]:
    """How networks train on so many users: two dozen steps an epoch or, from 4,800 on, batches of
    200.
    """
    return {"epochs": 100, "patience": 6, "batch_size": min(200, max(20, n_users // 24))}


WHAT_FOR: Mapping[str, str] = {
    POPULARITY: "the same list for everybody: what is below it is of no use",
    EASE: "try it first: no epochs, hard to beat; items² numbers, so some 20,000 items",
    MULT_VAE: "catalogues too large for that: a user is 200 numbers, an index can search",
    PIA: "dearer to train, the same to serve; on MovieLens-1M better than without",
    PATH: "both scores added; best on MovieLens-1M and in simulation, at the cost of both",
}
"""A sentence a model."""

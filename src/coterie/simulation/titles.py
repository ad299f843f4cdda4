"""The made-up catalogue of the simulated service: titles, genres and the niches items belong to.

Apart from `simulate`, which makes the users: words and popularity change for other reasons than
tastes.
"""

from dataclasses import dataclass

import numpy as np

ZIPF_EXPONENT = 1.1
"""Popularity falls as rank to the power of minus this."""

SECOND_NICHE = 0.3
"""Weight of an item in its second niche, against one in its own."""

BACKGROUND = 0.1
"""Share of every niche's consumption that follows overall popularity: no title is out of anybody's
reach.
"""

_NOUNS = {
    "Comedy": "Waiter Wedding Neighbour Parade Mayor Bakery Reunion Umbrella",
    "Drama": "Promise Daughter Winter Letter Silence Harvest Father Mirror",
    "Mystery": "Alibi Riddle Witness Cellar Inspector Clue Portrait Manor",
    "Space": "Comet Orbit Nebula Satellite Pilot Moonbase Eclipse Starship",
    "Western": "Saddle Canyon Sheriff Stagecoach Ranch Prairie Outlaw Spur",
    "Horror": "Crypt Raven Phantom Scream Asylum Shadow Coffin Marsh",
    "Romance": "Kiss Valentine Waltz Rose Bride Serenade Heart Honeymoon",
    "Adventure": "Compass Expedition Treasure Summit Caravan Jungle Voyage Map",
    "Crime": "Heist Verdict Gangster Ransom Smuggler Safe Informer Getaway",
    "Fantasy": "Dragon Wizard Amulet Kingdom Spell Griffin Oracle Throne",
    "War": "Regiment Trench Convoy Bugle Armistice Submarine Sentry Battle",
    "Nature": "Glacier Otter Reef Forest Heron Savanna Tide Wolf",
    "Music": "Trumpet Chorus Melody Drummer Encore Fiddle Ballad Orchestra",
    "Sport": "Marathon Striker Rowers Racket Champion Relay Goalkeeper Climber",
    "History": "Emperor Cathedral Chronicle Galleon Scribe Senate Plague Duchess",
    "Family": "Kitten Holiday Treehouse Grandmother Puppet Picnic Bicycle Snowman",
}
_ADJECTIVE_WORDS = (
    "Amber Ancient Bitter Blue Borrowed Brave Bright Broken Burning Careless Copper Crimson Crooked"
    " Distant Dusty Eager Electric Empty Endless Faithful Fallen Final Forgotten Fragile Frozen"
    " Gentle Gilded Golden Grey Hidden Hollow Humble Idle Invisible Iron Ivory Jealous Last Little"
    " Lonely Lost Lucky Midnight Noble Northern Paper Patient Pale Quiet Reckless Restless Scarlet"
    " Secret Seventh Silver Sleeping Stolen Stubborn Velvet Wandering"
)
_PLACE_WORDS = (
    "Aldermere Brackenhall Calloway Dunmarrow Eastwick Fallowdene Garrowby Hollin Inverlay Jessamy"
    " Kestrel Larkfield Merrow Nethercote Oakhaven Pellworth Quillan Ravensey Saltmoor Tarn"
    " Underhill Varrow Westerley Yarrowdale Zennor Ashgrove Briarley Coldwater Dovecote Emberly"
    " Foxhollow Greywater Hartswood Islay Juniper Kingsbarrow Lowmere Mossbank Northgate Orchard"
    " Penhallow Rookery Stonebridge Thornbury Ulverston Vinehill Willowby Wyndham"
)
_ADJECTIVES = _ADJECTIVE_WORDS.split()
_PLACES = _PLACE_WORDS.split()


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Everything known of the items.

    Args:
        titles: ``[n_items]`` strings, each once.
        genres: ``[n_items]`` strings such as ``"Space|Crime"``, those of the item's own niche.
        niche: ``[n_items]`` int64, the niche an item belongs to first of all.
        phi: ``[n_niches, n_items]`` float64, the probability of an item within a niche: positive
            everywhere, rows sum to one.
    """

    titles: tuple[str, ...]
    genres: tuple[str, ...]
    niche: np.ndarray
    phi: np.ndarray


def make_catalogue(n_items: int, n_niches: int, rng: np.random.Generator) -> Catalogue:
    """Makes up a catalogue: long-tailed popularity, niches of about equal numbers of titles.

    Args:
        n_items: Number of titles, at least ``n_niches``.
        n_niches: Number of niches.
        rng: Source of all randomness.

    Example:
        >>> catalogue = make_catalogue(n_items=40, n_niches=4, rng=np.random.default_rng(5))
        >>> len(set(catalogue.titles)), catalogue.phi.sum(axis=1).round(9).tolist()
        (40, [1.0, 1.0, 1.0, 1.0])
    """
    niche = rng.permutation(n_items) % n_niches
    names = [_niche_genres(k) for k in range(n_niches)]
    phi = _item_law(niche, n_niches, rng)
    titles = _make_titles([names[k][0] for k in niche], rng)
    return Catalogue(titles, tuple("|".join(names[k]) for k in niche), niche, phi)


def _item_law(niche: np.ndarray, n_niches: int, rng: np.random.Generator) -> np.ndarray:
    n_items = len(niche)
    weight = (1.0 + rng.permutation(n_items)) ** -ZIPF_EXPONENT
    phi = np.zeros((n_niches, n_items))
    phi[rng.integers(n_niches, size=n_items), np.arange(n_items)] = SECOND_NICHE * weight
    phi[niche, np.arange(n_items)] = weight
    phi *= (1 - BACKGROUND) / phi.sum(axis=1, keepdims=True)
    phi += BACKGROUND * weight / weight.sum()
    return phi


def _niche_genres(niche: int) -> tuple[str, str]:
    """A genre of its own and a second one: no two of the first 240 niches have the same two in the
    same order.
    """
    genres = list(_NOUNS)
    turn, first = divmod(niche, len(genres))
    return genres[first], genres[(first + 1 + turn % (len(genres) - 1)) % len(genres)]


def _make_titles(genres: list[str], rng: np.random.Generator) -> tuple[str, ...]:
    """Titles whose noun names the genre, so that a list of recommendations can be judged by eye."""
    # Numbering the titles of a genre and writing the number in words is what makes every title
    # unique.
    number_of = dict.fromkeys(_NOUNS, 0)
    shuffled = {
        genre: rng.permutation(len(nouns.split()) * len(_ADJECTIVES))
        for genre, nouns in _NOUNS.items()
    }
    titles = []
    for genre in genres:
        turn, number = divmod(number_of[genre], len(shuffled[genre]))
        titles.append(_title(genre, int(shuffled[genre][number]), turn))
        number_of[genre] += 1
    return tuple(titles)


def _title(genre: str, pair: int, turn: int) -> str:
    """The words of noun and adjective number ``pair``; later turns add a place, and then a part
    number.
    """
    nouns = _NOUNS[genre].split()
    title = f"The {_ADJECTIVES[pair // len(nouns)]} {nouns[pair % len(nouns)]}"
    if turn:
        title += f" of {_PLACES[(pair + turn) % len(_PLACES)]}"
    if turn > len(_PLACES):
        title += f", Part {1 + (turn - 1) // len(_PLACES)}"
    return title

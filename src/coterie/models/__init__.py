"""What a model is: its configuration, how it is trained and which network it makes; without torch.

One file a model. Fields and their ranges stand here; what is computed stands in `coterie.networks`,
which only the methods that build a network import, when they are called: the torch door.
"""

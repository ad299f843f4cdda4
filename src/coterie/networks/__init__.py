"""The networks: tensors in, tensors out.

Built from numbers: no network knows a configuration, a data set, an id or a path. Beside each stands
what it needs in training alone: its prior, PIA's anchors.
"""

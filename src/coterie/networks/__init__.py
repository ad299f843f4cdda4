"""The networks: tensors in, tensors out.

Built from numbers: no network knows a configuration, a data set, an id or a path. Beside them
stands what is needed in training alone: priors, PIA's anchors.
"""

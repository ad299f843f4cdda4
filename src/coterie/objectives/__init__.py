"""The terms of the objectives, as pure functions of tensors."""

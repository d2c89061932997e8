"""Content-based retrieval: what an item says about itself, so that nobody has to have bought it."""

ROLE = "generator"

LEARNS_FROM = "items"
"""Events are not looked at: on any past of one catalogue it comes out the same, so training fits it once."""

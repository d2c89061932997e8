"""Collaborative filtering: what others' behaviour says, by several methods, blended."""

ROLE = "generator"

"""Collaborative filtering: implicit ALS with an inductive user tower."""

ROLE = "generator"

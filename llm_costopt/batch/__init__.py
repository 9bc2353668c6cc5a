"""Batching: requests travel together."""

"""Graphs as numbers: what they store, where two can be compared, and what a graph with other parts answers."""

"""Graphs of atoms within a cutoff."""

from nearsight.neighbors.graph import Graph, collate, make_graph

__all__ = ["Graph", "collate", "make_graph"]

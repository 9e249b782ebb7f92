"""Couple: from the readouts of all atoms to the total energy, and from there to forces and virial."""

from nearsight.couple.couples import KINDS, build_couple
from nearsight.couple.evaluate import MemberResults, Results, edge_sums, evaluate, evaluate_members

__all__ = ["KINDS", "MemberResults", "Results", "build_couple", "edge_sums", "evaluate", "evaluate_members"]

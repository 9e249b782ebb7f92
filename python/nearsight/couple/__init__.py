"""Couple: from the readouts of all atoms to the total energy, and from there to forces and virial."""

from nearsight.couple.charge_frames import charge_frame, join_charge_frames
from nearsight.couple.couples import KINDS, build_couple
from nearsight.couple.electrostatics import ChargeFrames, Electrostatics
from nearsight.couple.evaluate import MemberResults, Results, edge_sums, evaluate, evaluate_members
from nearsight.couple.projection import project_charges

__all__ = [
    "KINDS",
    "ChargeFrames",
    "Electrostatics",
    "MemberResults",
    "Results",
    "build_couple",
    "charge_frame",
    "edge_sums",
    "evaluate",
    "evaluate_members",
    "join_charge_frames",
    "project_charges",
]

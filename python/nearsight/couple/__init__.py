"""Couple: from the readouts of all atoms to the total energy, and from there to forces and virial."""

from nearsight.couple.charge_frames import charge_frame, join_charge_frames
from nearsight.couple.charging import ChargedStructure, FrameCharger, join_charged
from nearsight.couple.coulomb import CoulombCouple
from nearsight.couple.couples import KINDS, build_couple
from nearsight.couple.dispersion import Dispersion, LabelDispersion
from nearsight.couple.electrostatics import ChargeFrames, Electrostatics
from nearsight.couple.evaluate import MemberResults, Results, edge_sums, evaluate, evaluate_members
from nearsight.couple.learned_numbers import LearnedNumbers, present_couple, settle, widest_couple
from nearsight.couple.projection import project_charges
from nearsight.couple.system import Charged, System

__all__ = [
    "KINDS",
    "ChargeFrames",
    "Charged",
    "ChargedStructure",
    "CoulombCouple",
    "Dispersion",
    "Electrostatics",
    "FrameCharger",
    "LabelDispersion",
    "LearnedNumbers",
    "MemberResults",
    "Results",
    "System",
    "build_couple",
    "charge_frame",
    "edge_sums",
    "evaluate",
    "evaluate_members",
    "join_charge_frames",
    "join_charged",
    "present_couple",
    "project_charges",
    "settle",
    "widest_couple",
]

"""Reference data: reading, checking, reference energies, splits, the report, and writing."""

from nearsight.data.frame import Frame, check_frame
from nearsight.data.hdf5 import read_hdf5, write_hdf5
from nearsight.data.readers import read_frames
from nearsight.data.reference_energies import (
    ReferenceEnergies,
    fit_energies,
    is_isolated_atom,
    reference_energies,
)
from nearsight.data.report import Summary, plausibility_warnings, report_table, summarize
from nearsight.data.runner import RUNNER_UNITS
from nearsight.data.split import Split, split_frames, write_split
from nearsight.data.writer import write_extxyz

__all__ = [
    "RUNNER_UNITS",
    "Frame",
    "ReferenceEnergies",
    "Split",
    "Summary",
    "check_frame",
    "fit_energies",
    "is_isolated_atom",
    "plausibility_warnings",
    "read_frames",
    "read_hdf5",
    "reference_energies",
    "report_table",
    "split_frames",
    "summarize",
    "write_extxyz",
    "write_hdf5",
    "write_split",
]

"""What a couple sees beside the readouts. Scriptable; annotations are not postponed, see `electrostatics`."""

from typing import NamedTuple, Optional

from torch import Tensor

from nearsight.couple.electrostatics import ChargeFrames


class Charged(NamedTuple):
    """What a couple with charges sees of F frames with n atoms."""

    species: Tensor  # [n] int64, index into the model's species list
    positions: Tensor  # [n, 3] Å
    total_charge: Tensor  # [M] e, of molecules; a frame without molecules is one
    molecule: Tensor  # [n] int64, number of the molecule of each atom
    frames: ChargeFrames
    strain: Optional[Tensor]  # [F, 3, 3], see `Electrostatics`  # noqa: UP045
    field: Optional[Tensor]  # [3] V/Å, uniform, on the first channel; has no virial  # noqa: UP045


class System(NamedTuple):
    """F frames with n atoms."""

    frame: Tensor  # [n] int64, number of the frame of each atom
    num_frames: int
    charged: Optional[Charged]  # of couples with charges  # noqa: UP045

"""Before anything imports e3nn: its own files are older than the check that torch makes by now."""

import os

os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"

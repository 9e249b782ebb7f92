"""``python -m nearsight``, which is also what torchrun starts: the program `nearsight`."""

from nearsight.cli import main

main()

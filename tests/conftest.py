"""Fixtures of several tests."""

import sys

import pytest

from nearsight.cli import main


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the program in this process: exit code, stdout, stderr."""

    def run_program(*arguments):
        monkeypatch.setattr(sys, "argv", ["nearsight", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
            sys.exit(0)
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err

    return run_program

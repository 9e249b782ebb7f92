"""The main job on bundled data: train on liquid water, run the model in every engine, compare, plot."""

from nearsight.demo.job import DemoLength, run_demo

__all__ = ["DemoLength", "run_demo"]

"""What make gpu-check reads from Nsight Compute."""

import pytest
from gpu_check import sum_kernels, table

CSV = """"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","void find_edges<float>(Candidates, int)","gpu__time_duration.sum","us","2,000"
"0","7","void find_edges<float>(Candidates, int)","dram__bytes.sum","Mbyte","4,800"
"0","7","void find_edges<float>(Candidates, int)","smsp__sass_thread_inst_executed_op_ffma_pred_on.sum","inst","30,000,000,000"
"1","7","void find_edges<float>(Candidates, int)","gpu__time_duration.sum","ns","2,000,000"
"2","7","unpack(int)","gpu__time_duration.sum","ns","1000"
"""  # noqa: E501


def test_launches_of_a_kernel_are_summed():
    edges, unpack = sum_kernels(CSV)
    assert edges["kernel"] == "void find_edges<float>"
    assert edges["seconds"] == pytest.approx(4e-3)
    assert edges["bandwidth"] == pytest.approx(1.2e12)
    assert edges["fp32"] == pytest.approx(15e12)
    assert edges["fp64"] == 0.0
    assert unpack["seconds"] == pytest.approx(1e-6)


def test_table_of_fractions():
    card = {"name": "a card", "bandwidth": 4.8e12, "fp32": 60e12, "fp64": 30e12}
    row = {"model": "ACSF small", "atoms": 1536, "precision": "mixed", "microseconds": 0.25}
    text = table({"benchmark": {"card": card, "rows": [row]}, "kernels": sum_kernels(CSV)})
    assert "| ACSF small | 1,536 | mixed | 0.250 |" in text
    assert "| `void find_edges<float>` | 100% | 25% | 25% | 0% |" in text

"""`make gpu-check`: the CUDA kernels on a machine with an NVIDIA GPU.

Builds for the GPU that is there, runs tests/cuda on it against the CPU's results, compute-sanitizer over the
smallest of them, then benchmarks/cuda.py, with Nsight Compute what share of the card's rates each kernel
reaches, and writes gpu-check/result.json and gpu-check/table.md. Needs no network: packages that are missing
are taken from wheels in the folder .whl, if there is one. Run as a script, not by pytest: it takes minutes.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "gpu"
SITE = BUILD / "site"
TOOLS = ("/usr/local/cuda/bin", "/opt/nvidia/nsight-compute/2025.3.1")
# What one launch does, as Nsight Compute counts it.
METRICS = {
    "seconds": "gpu__time_duration.sum",
    "bytes": "dram__bytes.sum",
    "ffma": "smsp__sass_thread_inst_executed_op_ffma_pred_on.sum",
    "fadd": "smsp__sass_thread_inst_executed_op_fadd_pred_on.sum",
    "fmul": "smsp__sass_thread_inst_executed_op_fmul_pred_on.sum",
    "dfma": "smsp__sass_thread_inst_executed_op_dfma_pred_on.sum",
    "dadd": "smsp__sass_thread_inst_executed_op_dadd_pred_on.sum",
    "dmul": "smsp__sass_thread_inst_executed_op_dmul_pred_on.sum",
}
SCALE = {"ns": 1e-9, "us": 1e-6, "usecond": 1e-6, "nsecond": 1e-9, "ms": 1e-3, "msecond": 1e-3, "s": 1.0}
SIZES = {"byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}


def tool(name: str) -> str | None:
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *TOOLS]))


def environment() -> dict[str, str]:
    paths = [str(BUILD / "python"), str(SITE), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PATH": os.pathsep.join([os.environ.get("PATH", ""), *TOOLS]),
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "NEARSIGHT_TEST_GPU": "1",
        "NEARSIGHT_CUDA_POISON": "1",
        "OMP_NUM_THREADS": "1",
    }


def run(*command: object, **options: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], cwd=ROOT, env=environment(), **options)


def install_wheels() -> None:
    wheels = sorted((ROOT / ".whl").glob("*.whl"))
    if wheels and not SITE.exists():
        options = ("--quiet", "--no-index", "--no-deps", "--no-compile", "--target", SITE)
        run(sys.executable, "-m", "pip", "install", *options, *wheels, check=True)


def build() -> None:
    """What the installed package holds: Python files and libraries side by side, for this GPU alone."""
    jobs = os.cpu_count() or 1
    options = ["-DCMAKE_CUDA_ARCHITECTURES=native", f"-DPython_EXECUTABLE={sys.executable}"]
    run("cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *options, check=True)
    run("cmake", "--build", BUILD, "-j", jobs, check=True)
    shutil.copytree(
        ROOT / "python", BUILD / "python", dirs_exist_ok=True, ignore=shutil.ignore_patterns("lib")
    )
    run("cmake", "--install", BUILD, "--prefix", BUILD / "python", check=True)


def run_tests(output: Path) -> dict[str, object]:
    report = output / "tests.xml"
    tests = ("tests/cuda", "tests/openmm/test_device.py")
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, f"--junitxml={report}")
    return {"passed": done.returncode == 0, "report": report.name}


def run_sanitizer() -> dict[str, object]:
    program = tool("compute-sanitizer")
    if program is None:
        return {"passed": None, "reason": "compute-sanitizer was not found"}
    found = {}
    for check in ("memcheck", "racecheck", "synccheck"):
        done = run(
            *(program, "--tool", check, "--error-exitcode", "9", "--target-processes", "all"),
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "smallest", "tests/cuda"),
            capture_output=True,
            text=True,
        )
        found[check] = {"passed": done.returncode == 0, "end": done.stdout[-1500:]}
    found["passed"] = all(found[check]["passed"] for check in ("memcheck", "racecheck", "synccheck"))
    return found


def run_benchmark(output: Path, *options: str) -> dict[str, object]:
    file = output / "benchmark.json"
    done = run(sys.executable, "benchmarks/cuda.py", "--output", file, *options)
    return json.loads(file.read_text()) if done.returncode == 0 else {"failed": done.returncode}


def profile_kernels(copies: str) -> list[dict[str, object]]:
    """What each kernel does in one step of each model, from Nsight Compute."""
    program = tool("ncu")
    if program is None:
        return []
    done = run(
        *(program, "--csv", "--metrics", ",".join(METRICS.values()), "--clock-control", "none"),
        *(sys.executable, "benchmarks/cuda.py", "--copies", copies, "--steps", "1", "--precisions", "mixed"),
        *("--output", BUILD / "profile.json"),
        capture_output=True,
        text=True,
    )
    start = done.stdout.find('"ID"')
    return sum_kernels(done.stdout[start:]) if start >= 0 else []


def sum_kernels(text: str) -> list[dict[str, object]]:
    kernels: dict[str, dict[str, float]] = {}
    names = {metric: key for key, metric in METRICS.items()}
    for row in csv.DictReader(io.StringIO(text)):
        key = names.get(row.get("Metric Name", ""))
        if key is None:
            continue
        value = float(row["Metric Value"].replace(",", "")) * (SCALE | SIZES).get(row["Metric Unit"], 1.0)
        kernel = kernels.setdefault(row["Kernel Name"].split("(")[0], dict.fromkeys(METRICS, 0.0))
        kernel[key] += value
    return [
        {
            "kernel": name,
            "seconds": k["seconds"],
            "bandwidth": k["bytes"] / k["seconds"],
            "fp32": (2 * k["ffma"] + k["fadd"] + k["fmul"]) / k["seconds"],
            "fp64": (2 * k["dfma"] + k["dadd"] + k["dmul"]) / k["seconds"],
        }
        for name, k in sorted(kernels.items(), key=lambda item: -item[1]["seconds"])
        if k["seconds"] > 0
    ]


def table(result: dict[str, object]) -> str:
    """Markdown for docs/cuda.md."""
    benchmark = result["benchmark"]
    card = benchmark.get("card", {})
    lines = [
        f"{card.get('name', 'no benchmark')}",
        "",
        "| model | atoms | precision | µs/atom/step |",
        "|---|--:|---|--:|",
    ]
    lines += [
        f"| {row['model']} | {row['atoms']:,} | {row['precision']} | {row['microseconds']:.3f} |"
        for row in benchmark.get("rows", [])
    ]
    lines += ["", "| kernel | share of time | of bandwidth | of FP32 | of FP64 |", "|---|--:|--:|--:|--:|"]
    total = sum(kernel["seconds"] for kernel in result["kernels"])
    lines += [
        f"| `{k['kernel']}` | {k['seconds'] / total:.0%} | {k['bandwidth'] / card['bandwidth']:.0%} "
        f"| {k['fp32'] / card['fp32']:.0%} | {k['fp64'] / card['fp64']:.0%} |"
        for k in result["kernels"]
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=ROOT / "gpu-check", help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="tests and small systems only")
    arguments = parser.parse_args()
    if tool("nvcc") is None or tool("nvidia-smi") is None:
        raise SystemExit(
            "gpu-check needs nvcc and an NVIDIA driver on this machine, and one of them was not found"
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    started = time.time()
    install_wheels()
    build()
    result: dict[str, object] = {"tests": run_tests(arguments.output)}
    small = ("--copies", "1", "2", "--steps", "5") if arguments.quick else ()
    result["benchmark"] = run_benchmark(arguments.output, *small)
    result["sanitizer"] = {"passed": None} if arguments.quick else run_sanitizer()
    result["kernels"] = profile_kernels("2" if arguments.quick else "8")
    result["minutes"] = (time.time() - started) / 60
    (arguments.output / "result.json").write_text(json.dumps(result, indent=1))
    (arguments.output / "table.md").write_text(table(result))
    print((arguments.output / "table.md").read_text())
    if not result["tests"]["passed"] or result["sanitizer"]["passed"] is False:
        raise SystemExit("gpu-check failed: see above")


if __name__ == "__main__":
    main()

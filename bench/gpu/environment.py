"""Prints what a machine has for `gpu.sh`; exit status 3 where only the library is missing or of no use there."""

import argparse
import platform
import shutil
import subprocess
import sys
import traceback

import torch

from bench import machine

NO_LIBRARY = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    if device == "cuda":
        if not torch.cuda.is_available():
            sys.exit(f"gpu.sh: expected a CUDA device, but torch {torch.__version__} sees none")
        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
        print(f"GPU {', '.join(names)}; driver {driver()}; CUDA {torch.version.cuda}")
    else:
        print("dry run on the CPU: no number means anything")
    print(f"torch {torch.__version__}; Python {platform.python_version()}; commit {machine.commit()}", flush=True)
    try:
        launch(device)
    except Exception:
        traceback.print_exc()
        sys.exit(NO_LIBRARY)


def driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    if not shutil.which(query[0]):
        return "unknown"
    return subprocess.run(query, capture_output=True, text=True).stdout.strip() or "unknown"


def launch(device: str) -> None:
    """Raises an error of any kind if the library does not load or has no kernel that this GPU runs."""
    from spherenet_fast import _library, ops

    if device == "cuda" and not _library.has_cuda_kernels():
        raise ImportError("the library was built without CUDA kernels")
    print("the library loads and launches:", ops.silu(torch.ones(2, device=device)).tolist())


if __name__ == "__main__":
    main()

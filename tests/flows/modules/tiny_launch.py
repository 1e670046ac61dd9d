"""Become two processes of a tiny job, as ``flows.launch`` does: ``-m tiny_launch KIND SPEC``."""

import os
import sys

from flows import launch

kind, spec = sys.argv[1:]
command = launch.command(["-m", "tiny_job", kind, spec], 2)
launch.become(command, launch.cpu_environment(2, os.environ))

"""Become two processes of a job, as ``flows.jobs.launch`` does: ``-m tiny_launch KIND SPEC``."""

import os
import sys

from flows.jobs import launch

kind, spec = sys.argv[1:]
command = launch.processes_command(["-m", "tiny_job", kind, spec], 2)
launch.exec_command(command, launch.cpu_environment(2, os.environ))

"""Work that loads torch, in processes of its own: `runner` starts a job and reads its progress.

`shared_job` shows it to other machines. `launch` waits for GPUs and becomes the job; `entrypoint`
is the job itself.
"""

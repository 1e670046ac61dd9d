"""Deleting what is in the home: `erase` a person, `prune` outputs that nothing needs any more.

`erase_servers` deletes at MLflow and Prefect, `outputs_in_use` reads which outputs jobs, runs and
decisions name. What is found and deleted in the warehouse and its files is in `components.erase`.
"""

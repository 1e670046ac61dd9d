"""Deleting a person from the home: `erase`, at MLflow and Prefect by `erase_servers`.

What is found and deleted in the warehouse and its files is in `components.erase`.
"""

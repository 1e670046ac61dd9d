"""Erase the data of one user or conversation, and prove that nothing is left.

Start at delete: subject defines the person and the search terms, subject_rows finds the rows and
blanks what approvers wrote, affected_outputs finds the outputs made from them, tombstones keep them
from being loaded again. leftovers searches the whole home, certificate records the result, tables
walks and rewrites the warehouse. Tombstones are committed before files are deleted and the
certificate is written last: repeating a killed erasure finishes it.
"""

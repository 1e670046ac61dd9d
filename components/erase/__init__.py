"""Erase the data of one user or conversation, and prove that nothing is left.

Start at delete: subject defines the person and the search terms, subject_rows finds the rows,
affected_outputs the outputs made from them, tombstones keep them from being loaded again,
decision_comments blanks what approvers wrote. leftovers searches the whole home, certificate
records the result, tables walks and rewrites the warehouse. Tombstones are committed before files
are deleted and the certificate is written last: repeating a killed erasure finishes it.
"""

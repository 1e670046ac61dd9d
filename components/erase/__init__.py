"""Erase what belongs to one user or conversation, and prove that nothing is left.

delete is the way in: subject says whom and by which search terms, subject_rows finds rows,
affected_outputs what was made from them, tombstones keep them from coming back,
decision_comments blanks what approvers wrote. leftovers searches the whole home, certificate
writes it down, tables walks and rewrites the warehouse. Tombstones are committed before files
are deleted and the certificate comes last: a killed erasure is finished by repeating it.
"""

"""Decisions: who may decide, proofs of identity, and the log of all decisions.

Start at record_answer, which also renders the form's header; approvers is the ``approve`` section
and checks one-time codes. statement is the signed text, ssh_signatures verifies it; chain has
the reason codes and links decisions by digests, decision_log stores them and returns which count,
decision_export writes them for auditors; blame resolves what a rejection blames.
"""

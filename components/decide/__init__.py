"""Decide: who may, what proves their identity, and the log of all decisions.

record_answer is the way in and approvers the ``approve`` section. statement is what is signed,
ssh_signatures verifies it, totp are one-time codes; chain links decisions by digests,
decision_log stores and exports them, validity checks them; reasons are codes and what a
rejection points at; approval_page is the form's header.
"""

"""Decide: who may, what proves the name, what a rejection blames, and the record of it all.

``chain`` is how rows hold together, ``record`` reads and writes them, ``export`` is for auditors;
``approvers`` is the section of a workload's file, ``rules`` what it comes to. ``hearing`` applies
them to an answer, with ``totp`` for codes, and ``statement``, ``ssh_signature`` and
``allowed_signers`` for signatures; ``proofs`` says whether a decision is still proved. ``standing``
says what the words on an evidence come to, ``blame`` what a rejection points at, and ``page`` what
stands above the evidence when it is asked about.
"""

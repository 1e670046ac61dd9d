"""Erase what belongs to one subject, a user or a conversation, and prove that nothing is left.

``subject`` says who, ``matching`` finds the rows, ``lineage`` what was made from them, ``books``
keeps what is erased and why nothing brings it back, ``rows`` and ``folders`` delete, ``archive``
writes retention's files anew. ``texts`` and ``needles`` say what counts as found, ``search`` looks
everywhere, ``certificate`` writes it down. Whatever is deleted is committed after its tombstones,
and the certificate is written last: an erasure that was killed is finished by asking again.
"""

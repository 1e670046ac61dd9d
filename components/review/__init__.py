"""Pick what a person's word would help most, and turn that word into feedback.

``reading`` gathers what is known of each interaction, ``measured`` how models answered it,
``score`` decides what to ask about and why, ``answers`` writes what a person said as a feedback
record, ``labelled`` is the file for a labelling tool.
"""

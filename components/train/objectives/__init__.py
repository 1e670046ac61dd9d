"""What an adapter learns from: answers, pairs of answers, labelled answers, or another model.

``settings`` names the objectives and their knobs, ``losses`` holds their formulas, ``view`` says
which file of a snapshot each reads.
"""

"""Judge scorecards: policy sets the requirements, judge returns a judgement with reasons.

comparability rejects what can't be compared, comparison compares the rest with
paired_scores and significance. evidence_folder stores the result, report displays it.
"""

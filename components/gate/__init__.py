"""Judge scorecards: policy is what is required, judge returns a judgement with reasons.

comparability refuses what can't be compared, comparison compares the rest with
paired_scores, significance and power. evidence_folder keeps it, report shows it.
"""

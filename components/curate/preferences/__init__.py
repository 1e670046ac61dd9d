"""Weigh people's feedback: meaning of each kind, abuse and disagreement, pairs and labels.

weigh is the entry point. feedback_signals parses a signal; abuse finds floods and brigades, caps
holds them back; consensus resolves disagreement; pairs_and_labels are the results,
preference_rows their training rows, outcomes the fate of each signal.
"""

"""Weigh people's feedback: what each kind means, whom to believe, and what is learned from it.

weigh is the way in. feedback_signals reads a signal; abuse finds floods and brigades, caps
holds them back; consensus resolves disagreement; pairs_and_labels are the results,
preference_rows their training rows, outcomes what became of each signal.
"""

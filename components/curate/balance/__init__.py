"""Choose what of the training side is trained on: caps, a budget, and rows replayed from elsewhere.

``settings`` is what a workload may say; ``choosing`` leaves rows out, by rules that growth does not
reshuffle; ``replay`` reads rows of other sets and keeps those that the holdout forbids away;
``applying`` reads and changes the tables. What is tested on is never touched.
"""

"""Built-in tasks besides the holdout; `score_conditions` has the versions of each."""

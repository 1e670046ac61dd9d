"""Train an adapter on a snapshot: `fit.fit(snapshot, base, folder, recipe)` is the way in.

`recipe` holds the settings, `plan` predicts memory and time, `search` runs successive halving over
several recipes.
"""

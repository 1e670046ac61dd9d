"""Try several recipes and bases inside one budget, and stop early on those that fall behind.

``settings`` says what is tried, ``grid`` makes the candidates of it, ``halving`` the rungs that the
budget affords, ``choose`` decides who goes on and who wins, ``records`` keeps what each came to.
Nothing here trains: a candidate's rung is a training as any other, which stops at a step.
"""

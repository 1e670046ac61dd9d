"""Say before a training what it will take: parameters, memory, steps, tokens, time and money.

``hollow`` builds base and adapter without their weights, ``parameters`` counts them, ``trace`` runs
one step without computing it and adds up what lives, ``alive`` what of a batch does at once,
``memory`` holds the formulas, ``work`` what there is to compute, ``fitting`` which batch fits,
``making`` puts it together into what ``planned`` records; ``calibrate`` trains for some seconds.
"""

"""Judge scorecards: ``mcnemar`` is the test, ``judge`` gives the outcome and its reasons."""

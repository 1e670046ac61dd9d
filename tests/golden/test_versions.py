"""A number is what keys and manifests hold; the first is found under the digest that it was."""

from components.store import manifest


def test_the_first_version_is_written_as_the_digest_that_it_was_and_others_as_numbers():
    assert manifest.version(1, first="ea6607d4e60d458b") == "ea6607d4e60d458b"
    assert manifest.version(2, first="ea6607d4e60d458b") == "2"

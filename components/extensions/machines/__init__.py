"""What machines that share no folder share in an object store (S3)."""

"""What keeps data on disk: ``file_locks`` holds files against other processes."""

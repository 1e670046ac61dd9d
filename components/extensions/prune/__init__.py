"""What nothing needs any more: `unused_outputs` finds old outputs, and deletes them."""

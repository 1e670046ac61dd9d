"""How pages look: ``jinja`` renders templates, ``markdown`` escapes, ``charts`` styles pictures."""

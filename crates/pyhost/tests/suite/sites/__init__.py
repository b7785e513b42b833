"""Flask and Django projects as people write them: nothing in them knows of the suite or of a server."""

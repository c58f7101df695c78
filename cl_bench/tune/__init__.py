"""Search for the start length and duration of a curriculum."""

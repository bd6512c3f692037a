"""Questions about a live stream, with a memory that stays bounded."""

"""One file a migration, numbered; a released one never changes."""

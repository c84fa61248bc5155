"""What `gatectl config` is made of: reading and writing the file, showing what would differ, carrying it out."""

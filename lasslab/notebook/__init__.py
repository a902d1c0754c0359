"""What a notebook shows: plots with alt text and small audio players."""

"""What a capture may record beside the chosen experts: one small module each, off by default."""

"""Files: outputs checked first, written beside their place and renamed."""

"""nearfar."""

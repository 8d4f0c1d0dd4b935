"""How this room's numbers are laid out: tables, figures and pages."""

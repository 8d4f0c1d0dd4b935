"""Pictures of reports: their style, loss curves, panels, condition numbers."""

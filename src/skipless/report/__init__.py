"""The kit that reports are made with: runs as records, tables, figures, curves, pages and files. It knows no table."""

"""One study of several models, and what they come to side by side."""

"""What the teachers of this room are worth: evaluations and pictures, each kept in a file."""

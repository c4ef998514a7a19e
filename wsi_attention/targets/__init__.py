"""What a model may be asked for: one label, grades in order, several labels, numbers, or survival."""

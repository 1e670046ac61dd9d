"""The pictures: differences, slices, cost against quality, history."""

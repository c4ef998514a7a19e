"""Many slides: found, named, classified one by one, summed up."""

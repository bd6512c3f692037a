"""MovingShapes: a benchmark that the project makes, in the columns of Video-MME."""

"""MovingShapes streams: minutes to hours of shots, with questions that are asked while they run."""

"""What people read and look at after an evaluation."""

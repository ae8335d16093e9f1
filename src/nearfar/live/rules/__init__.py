"""What scores and silence mean for a person: pure rules, without a clock, a thread or a disk."""

"""What the trainer looks at: crops of an image, and which of their patches are hidden from the student."""

"""The methods of the papers as plain torch: tensors in, tensors out, no files, no screen, no clock."""

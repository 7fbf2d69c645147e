"""Networks: tensors in, tensors out. Nothing here opens a file."""

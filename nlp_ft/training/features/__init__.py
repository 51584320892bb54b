"""What frozen blocks give, kept from epoch to epoch: whether that pays, where it is kept, how training enters."""

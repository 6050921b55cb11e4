"""What every backend starts from: exp, log, sin... as plain arithmetic, narrow dtypes, addresses as affine expressions."""

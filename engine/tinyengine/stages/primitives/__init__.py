"""The schedule primitives, Kernel → Kernel, one file for each that is long; `apply` parses and applies what a person types,
`nest` has the tools for loop nests."""

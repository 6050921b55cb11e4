"""The engine's own choice of primitives, by the form of the kernel: elementwise, products (product says what one is), outer sums,
blocks of attention; `tile`, `depth`, `lanes` choose sizes by `cost`; `forms` finds equal kernels, so that each is done once."""

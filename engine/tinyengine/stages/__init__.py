"""The stages of the compiler, one file each, in the order of `tinyengine.pipeline.STAGES`."""

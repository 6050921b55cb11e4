"""What all tests share: after every stage its spec is checked."""

from tinyengine import spec

spec.enabled = True

"""The generator built as a microscope, and how it is estimated from particles."""

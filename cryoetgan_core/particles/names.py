"""What programs call a tomogram: its file, with or without folder, ending and voxel size."""

import re

_ENDINGS = re.compile(r"\.(mrc|rec|tomostar|star|map|tif|tiff|h5|hdf5|zarr|em|gz|bz2)$")


def tomogram_name(name: object) -> str:
    """Name of a tomogram without folder, endings (``.mrc.tomostar``) and a voxel size such as ``_10.00Apx``."""
    base = re.split(r"[\\/]", str(name))[-1]
    while _ENDINGS.search(base):
        base = _ENDINGS.sub("", base)
    return re.sub(r"_\d+\.\d+Apx$", "", base)

"""oslo.utils' format inspector, with which Glance, Nova and Cinder guard themselves: its verdict on each file of a directory."""

import json
import pathlib
import sys

from oslo_utils.imageutils import format_inspector


def verdict(path):
    with open(path, "rb") as source:
        inspected = format_inspector.InspectWrapper(source)
        while inspected.read(65536):
            pass
        inspected.close()
    found = {str(one): one for one in inspected.formats}
    # As Glance does: a partition table makes an ISO bootable.
    if "iso" in found:
        found.pop("gpt", None)
    if len(found) != 1:
        return {"refused": f"formats: {sorted(found)}"}
    (name, one), = found.items()
    try:
        one.safety_check()
    except (format_inspector.ImageFormatError, format_inspector.SafetyCheckFailed) as refusal:
        return {"refused": str(refusal)}
    return {"format": name, "size": one.virtual_size}


print(json.dumps({path.name: verdict(path) for path in pathlib.Path(sys.argv[1]).iterdir()}))

"""otcextensions: each call that it has for images and their jobs, with every filter; its `openstack` commands have none."""

import os
from importlib.metadata import distribution

import openstack
from openstack import exceptions
from otcextensions import sdk
from otcextensions.sdk.imsv1.v1 import _proxy as imsv1
from otcextensions.sdk.imsv2.v2 import _proxy as imsv2
from otcextensions.sdk.imsv2.v2 import image as _image

BUCKET = os.environ["CALOTYPE_BUCKET"]
PROJECT = os.environ["CALOTYPE_PROJECT"]

with open(os.path.join(BUCKET, "disk.raw"), "wb") as file:
    file.write(b"v" * 1_000_000)

conn = openstack.connect(cloud=os.environ["OS_CLOUD"])
sdk.register_otc_extensions(conn)
made = set()


def called(name):
    made.add(name)
    return getattr(conn.imsv1 if hasattr(imsv1.Proxy, name) else conn.imsv2, name)


# Both are found by the catalog's type `image`, and nothing else is asked for first.
for proxy, version in ((conn.imsv1, "v1"), (conn.imsv2, "v2")):
    assert proxy.endpoint_override == os.environ["CALOTYPE_URL"] + "/" + version, proxy.endpoint_override

accepted = called("create_image")(
    name="one", description="by otcextensions", image_url="images:disk.raw", min_disk=40, min_ram=512, max_ram=1024,
    os_version="CentOS 7.2 64bit", is_config=True, type="ECS", image_tags=[{"key": "env", "value": "dev"}])
# Of an answer or of its id.
job = called("wait_for_async_job")(accepted, wait=0.1)
shown = called("get_async_job")(job.job_id)
for each in (job, shown):
    assert (each.status, each.job_type) == ("SUCCESS", "imsImportImageJob"), each
    assert each.begin_time <= each.end_time and each.error_code is None and each.fail_reason is None, each
one = shown.entities["image_id"]
assert shown.entities["image_name"] == "one", shown

# A job that fails ends the wait.
with open(os.path.join(BUCKET, "short.qcow2"), "wb") as file:
    file.write(b"QFI\xfb\0\0\0\x03" + bytes(70_000))
accepted = conn.imsv2.create_image(name="broken", image_url="images:short.qcow2", min_disk=40)
try:
    conn.imsv1.wait_for_async_job(accepted.job_id, wait=0.1)
except RuntimeError as error:
    assert accepted.job_id in str(error), error
else:
    raise AssertionError("the job did not fail")
failed = conn.imsv1.get_async_job(accepted.job_id)
assert failed.status == "FAIL" and failed.error_code == "IMG.0057" and failed.fail_reason, failed
try:
    conn.imsv1.get_async_job("0" * 32)
except exceptions.NotFoundException as error:
    assert "task query" in str(error), error
else:
    raise AssertionError("there is no such job")

accepted = conn.imsv2.create_image(name="two", image_url="images:disk.raw", min_disk=50)
two = conn.imsv1.wait_for_async_job(accepted.job_id, wait=0.1).entities["image_id"]
images = called("images")
# Each filter with a value that one image has, both have, or none.
FILTERS = {
    "id": (one, {one}), "name": ("two", {two}), "status": ("active", {one, two}), "__isregistered": ("true", {one, two}),
    "__imagetype": ("gold", set()), "__whole_image": ("true", set()), "__system__cmkid": (one, set()),
    "protected": ("true", set()), "visibility": ("private", {one, two}), "owner": (PROJECT, {one, two}),
    "container_format": ("bare", {one, two}), "disk_format": ("qcow2", set()), "min_disk": (50, {two}),
    "min_ram": (512, {one}), "__os_bit": ("32", set()), "__platform": ("CentOS", {one}), "__os_type": ("Linux", {one}),
    "tag": ("env=dev", {one}), "member_status": ("accepted", {one, two}), "__support_kvm": ("true", set()),
    "__support_xen": ("true", set()), "__support_largememory": ("true", set()),
    "__support_diskintensive": ("true", set()), "__support_highperformance": ("true", set()),
    "__support_xen_gpu_type": ("M60_vGPU", set()), "__support_kvm_gpu_type": ("P100", set()),
    "__support_xen_hana": ("true", set()), "__support_kvm_infiniband": ("true", set()),
    "virtual_env_type": ("FusionCompute", {one, two}), "enterprise_project_id": ("0", {one, two}),
}
wrong = {}
for name, (value, wanted) in FILTERS.items():
    found = {image.id for image in images(**{name: value})}
    if found != wanted:
        wrong[name] = found
assert not wrong, wrong
order = {"sort_key": "name", "sort_dir": "desc"}
assert [image.name for image in images(**order)] == ["two", "one"]
assert [image.name for image in images(limit=1, **order)] == ["two"]
assert [image.name for image in images(marker=two, **order)] == ["one"]
left = set(_image.Image._query_mapping._mapping) - set(FILTERS) - {"limit", "marker", "sort_key", "sort_dir"}
assert not left, left

changes = [
    {"op": "replace", "path": "/name", "value": "changed"},
    {"op": "replace", "path": "/__description", "value": "by otcextensions"},
    {"op": "add", "path": "/hw_firmware_type", "value": "uefi"},
]
changed = called("update_image")(two, command_list=changes)
assert (changed.name, changed.hw_firmware_type) == ("changed", "uefi"), changed
assert [image.id for image in images(name="changed")] == [two]
try:
    conn.imsv2.update_image(two, command_list=[{"op": "replace", "path": "/absent", "value": "x"}])
except exceptions.BadRequestException as error:
    assert "no attribute 'absent'" in str(error), error
else:
    raise AssertionError("it was not refused")

export = called("export_image")
accepted = export(image_id=one, bucket_url="images:one.qcow2", file_format="qcow2")
job = conn.imsv1.wait_for_async_job(accepted.job_id, wait=0.1)
assert (job.status, job.job_type) == ("SUCCESS", "imsNativeExportImageJob"), job
assert job.entities["image_id"] == one, job
with open(os.path.join(BUCKET, "one.qcow2"), "rb") as file:
    assert file.read(4) == b"QFI\xfb"
try:
    export(image_id=one, bucket_url="images:one.qcow2", file_format="qcow2")
except exceptions.BadRequestException as error:
    assert "already exists" in str(error), error
else:
    raise AssertionError("the object is there already")

calls = {name for proxy in (imsv1.Proxy, imsv2.Proxy) for name, value in vars(proxy).items() if callable(value)}
left = calls - made
assert not left, left
commands = [entry for entry in distribution("otcextensions").entry_points if entry.group.startswith("openstack.")]
assert commands and not [entry for entry in commands if "ims" in entry.group or "image" in entry.name], commands

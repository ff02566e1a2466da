"""otcextensions: an image of an object in a bucket, and the wait for its job."""

import os

import openstack
from openstack import exceptions
from otcextensions import sdk

with open(os.path.join(os.environ["CALOTYPE_BUCKET"], "disk.raw"), "wb") as file:
    file.write(b"z" * 1_000_000)

conn = openstack.connect(cloud=os.environ["OS_CLOUD"])
sdk.register_otc_extensions(conn)

accepted = conn.imsv2.create_image(
    name="imported", description="by otcextensions", image_url="images:disk.raw", min_disk=40,
    os_version="Debian GNU/Linux 10.0.0 64bit", tags=["env.dev"])
conn.imsv1.wait_for_async_job(accepted.job_id, wait=0.1)
job = conn.imsv1.get_async_job(accepted.job_id)
assert job.status == "SUCCESS", job
[image] = list(conn.imsv2.images(name="imported"))
assert image.status == "active" and image.min_disk == 40, image
assert (image.data_origin, image.platform, image.tags) == ("file,images:disk.raw", "Debian", ["env=dev"]), image

try:
    conn.imsv2.create_image(name="no", image_url="images:nothing", min_disk=40)
except exceptions.BadRequestException as error:
    assert "The image file is empty, not found" in str(error), error
else:
    raise AssertionError("it was not refused")

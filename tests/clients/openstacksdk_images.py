"""openstacksdk: make, upload, find, change, share, download and delete an image."""

import hashlib
import io
import os
import time

import openstack

CONTENT = os.urandom(3 * 1024 * 1024 + 17)

cloud = openstack.connect(cloud=os.environ["OS_CLOUD"])

with open("disk.raw", "wb") as file:
    file.write(CONTENT)
image = cloud.create_image(
    "sdk-image",
    filename="disk.raw",
    disk_format="raw",
    container_format="bare",
    wait=True,
    timeout=120,
    tags=["web"],
    os_distro="debian",
)
assert image.status == "active", image.status
assert image.size == len(CONTENT), image.size
assert image.checksum == hashlib.md5(CONTENT).hexdigest()
assert image.hash_algo == "sha512"
assert image.hash_value == hashlib.sha512(CONTENT).hexdigest()

found = cloud.image.find_image("sdk-image")
assert found.id == image.id
assert cloud.image.find_image("absent", ignore_missing=True) is None
assert [i.id for i in cloud.image.images(name="sdk-image")] == [image.id]

target = io.BytesIO()
cloud.image.download_image(image, output=target)
assert target.getvalue() == CONTENT

changed = cloud.image.update_image(image, name="renamed", min_disk=7)
assert (changed.name, changed.min_disk) == ("renamed", 7)
cloud.image.add_tag(changed, "fresh")
assert sorted(cloud.image.get_image(image.id).tags) == ["fresh", "web"]
cloud.image.remove_tag(changed, "fresh")
assert cloud.image.get_image(image.id).tags == ["web"]

cloud.image.deactivate_image(image.id)
assert cloud.image.get_image(image.id).status == "deactivated"
cloud.image.reactivate_image(image.id)

for number in range(30):
    cloud.image.create_image(f"page-{number}", disk_format="raw", container_format="bare", validate_checksum=False, data=b"x")
names = [i.name for i in cloud.image.images(limit=7)]
assert len(names) == len(set(names)) == 31, names

# A replica, by the IMS call that the SDK has no name for.
image_api = cloud.image
base = os.environ["CALOTYPE_URL"]
response = cloud.session.post(f"{base}/v1/cloudimages/{image.id}/copy", json={"name": "replica"})
job = response.json()["job_id"]
deadline = time.monotonic() + 90
while time.monotonic() < deadline:
    document = cloud.session.get(f"{base}/v1/{os.environ['CALOTYPE_PROJECT']}/jobs/{job}").json()
    if document["status"] in ("SUCCESS", "FAIL"):
        break
    time.sleep(0.02)
assert document["status"] == "SUCCESS", document
target = io.BytesIO()
image_api.download_image(document["entities"]["image_id"], output=target)
assert target.getvalue() == CONTENT

for each in list(cloud.image.images()):
    cloud.image.delete_image(each.id)
assert list(cloud.image.images()) == []
